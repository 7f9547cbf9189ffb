//! TURN credentials (mint, verify, revoke), tokens and their grants, keyrings with rotation.

pub mod revocation;
pub mod secret;
pub mod token;
pub mod turn;
