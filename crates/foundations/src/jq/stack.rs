//! Room on the stack for what calls itself.

/// The stack that has to be left: what runs without looking again takes less, dropping a value nested as deep as may be
/// included.
const LEFT: usize = 1 << 20;
/// By how much the stack grows. Memory is only taken for what is used of it.
const MORE: usize = 16 << 20;

/// Runs `f` where there is room for it.
pub(super) fn roomy<T>(f: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(LEFT, MORE, f)
}
