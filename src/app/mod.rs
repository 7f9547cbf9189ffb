//! Composition root: what joins the rooms.

pub mod dev;
pub mod keys;
