//! Other systems let nobody choose, or each in a way of its own.

/// The processors on which this thread may run: not known.
pub(crate) fn allowed() -> Vec<usize> {
    Vec::new()
}

/// Not known either.
pub(crate) fn everywhere() -> Vec<usize> {
    Vec::new()
}

/// This thread stays where it is.
pub(crate) fn stay_on(_processors: &[usize]) -> bool {
    false
}
