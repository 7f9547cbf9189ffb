//! TURN credentials (mint, verify), tokens and their grants, keyrings with rotation.

pub mod secret;
pub mod token;
pub mod turn;
