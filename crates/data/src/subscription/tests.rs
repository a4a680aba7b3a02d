//! Does it hold on a real store?

mod catching_up;
mod consuming;
mod erasing;
mod processes;
mod world;
