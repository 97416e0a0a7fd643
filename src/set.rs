//! Many children on one thread.
