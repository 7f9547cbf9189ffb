//! The kernel's interfaces that no safe crate offers: one file each, and all `unsafe` of the
//! engine is here.

pub mod affinity;
pub mod icmp;
pub mod lock;
pub mod udp;
