//! Other systems let nobody choose, or each in a way of its own.

/// This thread stays where it is.
pub(crate) fn settle(_place: usize) {}

/// It runs anywhere anyway.
pub(crate) fn roam() -> bool {
    false
}

/// Wherever it runs itself.
pub(crate) fn of_children() -> Option<Vec<usize>> {
    None
}
