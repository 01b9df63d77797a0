//! What integration tests share.

pub mod guests;
