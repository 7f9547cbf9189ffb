//! `veilgate turn`: TURN credentials.

use std::io::Read as _;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::keys::KeyArgs;
use super::{Done, EXIT_NO, Failure, out, unix_now};
use crate::app::dev;
use crate::auth::turn::{Class, MAX_USERNAME, Mint, Refused};
use crate::config::duration;
use crate::ids::{RoomHash, SubjectHash};

/// Mint and verify TURN credentials
#[derive(Subcommand)]
pub(super) enum TurnCommand {
    Mint(MintArgs),
    Verify(VerifyArgs),
}

/// Mint a short-lived TURN credential
#[derive(Args)]
#[command(
    long_about = "\
Mint a TURN credential: a user name and a password for RTCPeerConnection's iceServers.

The name is sealed: it says nothing about its subject to whoever sees it. For --ttl new \
allocations can be made with it; calls that have begun go on until the session limit of the \
configuration (12 hours unless it says otherwise). It reaches the forwarder and nothing else.",
    after_long_help = "\
EXAMPLES
  veilgate turn mint --subject user-42 --ttl 10m
  veilgate turn mint --subject user-42 --room lobby --config veilgate.yaml --json
  veilgate turn mint --subject me --probe --json > probe.json

With --json, one entry of iceServers and its end:
  {\"urls\":[…],\"username\":…,\"credential\":…,\"ttl\":600,\"expires_at\":1780000600}"
)]
pub(super) struct MintArgs {
    /// For whom: any text that names the user in your application
    #[arg(long, value_name = "TEXT")]
    subject: String,

    /// Only for sessions of this room
    #[arg(long, value_name = "ROOM")]
    room: Option<String>,

    /// For `veilgate probe`: reaches also the echo, and is for no user
    #[arg(long)]
    probe: bool,

    /// How long new allocations may be made: 90s, 10m, 1h [default: auth.credential_ttl, or 10m]
    #[arg(long, value_name = "SPAN", value_parser = duration::parse)]
    ttl: Option<Duration>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    keys: KeyArgs,
}

/// Say what a TURN user name was minted for, and whether it still holds
#[derive(Args)]
#[command(
    long_about = "\
Say what a TURN user name was minted for, and whether it still holds. Exits with 1 when nothing \
new can be allocated with it.

Subject and room are stored as hashes: give --subject or --room to compare.",
    after_long_help = "\
EXAMPLES
  veilgate turn verify '1780000600:k1.Jx3f…'
  veilgate turn mint --subject a --json | jq -r .username | veilgate turn verify --subject a"
)]
pub(super) struct VerifyArgs {
    /// The user name [default: read from stdin]
    #[arg(value_name = "USERNAME")]
    username: Option<String>,

    /// Compare with this subject
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,

    /// Compare with this room
    #[arg(long, value_name = "ROOM")]
    room: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    keys: KeyArgs,
}

pub(super) fn run(command: &TurnCommand) -> Done {
    match command {
        TurnCommand::Mint(args) => mint(args),
        TurnCommand::Verify(args) => verify(args),
    }
}

/// One entry of `iceServers`, and when it ends.
#[derive(Serialize)]
struct IceServer {
    urls: Vec<String>,
    username: String,
    credential: String,
    ttl: u64,
    expires_at: u64,
}

fn mint(args: &MintArgs) -> Done {
    let origin = args.keys.origin()?;
    let keys = origin.turn_keys()?;
    let lives = origin.lives();
    let ttl = args.ttl.unwrap_or(lives.ttl);
    let request = Mint {
        subject: &args.subject,
        room: args.room.as_deref(),
        class: if args.probe { Class::Probe } else { Class::Forwarder },
        ttl,
        session_limit: lives.session_limit,
    };
    if args.subject.is_empty() {
        return Err(Failure::Usage("--subject is empty".to_owned()));
    }
    let now = unix_now();
    let urls = origin.urls()?;
    let minted = keys
        .mint(now, &request, dev::random()?)
        .map_err(|error| Failure::No(anyhow!("{error}")))?;
    let server = IceServer {
        urls,
        username: minted.username,
        credential: minted.credential,
        ttl: ttl.as_secs(),
        expires_at: minted.allocate_by.as_secs(),
    };
    if args.json {
        return Ok(out::json(&server)?);
    }
    let mut text = String::new();
    for url in &server.urls {
        text.push_str(&format!("url         {url}\n"));
    }
    text.push_str(&format!(
        "username    {}\ncredential  {}\nexpires     {}\n",
        server.username,
        server.credential,
        out::moment(server.expires_at, now.as_secs())
    ));
    Ok(out::plain(&text)?)
}

#[derive(Serialize)]
struct Explained {
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allocate_by: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    live_until: Option<u64>,
}

fn verify(args: &VerifyArgs) -> Done {
    let keys = args.keys.origin()?.turn_keys()?;
    let username = match &args.username {
        Some(username) => username.clone(),
        None => {
            let mut text = String::new();
            std::io::stdin().lock().take(MAX_USERNAME as u64 + 64).read_to_string(&mut text)?;
            text
        }
    };
    let now = unix_now().as_secs();
    let verified = match keys.verify(username.trim(), "") {
        Ok(verified) => verified,
        Err(refused) => {
            let reason = match refused {
                Refused::UnknownKey => "unknown_key",
                Refused::Malformed => "malformed",
                Refused::Forged => "forged",
            };
            let explained = Explained {
                valid: false,
                reason: Some(reason),
                class: None,
                subject_hash: None,
                room_hash: None,
                allocate_by: None,
                live_until: None,
            };
            if args.json {
                out::json(&explained)?;
            } else {
                out::plain(&format!("not valid: {refused}\n"))?;
            }
            return Err(Failure::Told(EXIT_NO));
        }
    };
    let subject_fits = args.subject.as_ref().map(|s| SubjectHash::of(s) == verified.subject);
    let room_fits =
        args.room.as_ref().map(|room| verified.room.is_none_or(|own| own == RoomHash::of(room)));
    let (allocate_by, live_until) = (verified.allocate_by.as_secs(), verified.live_until.as_secs());
    let reason = if subject_fits == Some(false) {
        Some("other_subject")
    } else if room_fits == Some(false) {
        Some("other_room")
    } else if now >= allocate_by {
        Some("expired")
    } else {
        None
    };
    let (class, reach) = match verified.class {
        Class::Forwarder => ("forwarder", "the media address, nothing else"),
        Class::Probe => ("probe", "the media address and the echo of probes"),
    };
    let explained = Explained {
        valid: reason.is_none(),
        reason,
        class: Some(class),
        subject_hash: Some(dev::hex(&verified.subject.0)),
        room_hash: verified.room.map(|room| dev::hex(&room.0)),
        allocate_by: Some(allocate_by),
        live_until: Some(live_until),
    };
    if args.json {
        out::json(&explained)?;
    } else {
        let told = |fits: Option<bool>| match fits {
            Some(true) => "  (as given)",
            Some(false) => "  (not the one given)",
            None => "",
        };
        let mut text = match reason {
            None => "valid\n".to_owned(),
            Some(reason) => format!("not valid: {}\n", reason.replace('_', " ")),
        };
        text.push_str(&format!("class        {class}: reaches {reach}\n"));
        text.push_str(&format!(
            "subject      hash {}{}\n",
            dev::hex(&verified.subject.0),
            told(subject_fits)
        ));
        let room = verified.room.map_or_else(
            || "any".to_owned(),
            |room| format!("hash {}{}", dev::hex(&room.0), told(room_fits)),
        );
        text.push_str(&format!("room         {room}\n"));
        text.push_str(&format!("allocate by  {}\n", out::moment(allocate_by, now)));
        text.push_str(&format!("live until   {}\n", out::moment(live_until, now)));
        out::plain(&text)?;
    }
    if reason.is_some() { Err(Failure::Told(EXIT_NO)) } else { Ok(()) }
}
