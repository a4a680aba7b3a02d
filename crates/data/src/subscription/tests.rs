//! Does it hold on a real store?

mod catching_up;
mod consuming;
mod processes;
mod world;
