//! Composition root: what joins the rooms.

pub mod dev;
pub mod keys;
//mod listener;
//mod run;

//pub use run::run;
