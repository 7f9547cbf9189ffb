//! The async owner of what exists.

pub mod api;
