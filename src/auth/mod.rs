//! TURN credentials (mint, verify, revoke), tokens and their grants, keyrings with rotation, the
//! admin key.

pub mod admin;
pub mod explain;
pub mod revocation;
pub mod secret;
pub mod static_users;
pub mod token;
pub mod turn;
