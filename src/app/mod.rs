//! Composition root: what joins the rooms.

pub mod dev;
mod doorstep;
mod gateway;
pub mod keys;
mod listener;
pub mod nonces;
mod run;

pub use run::run;
