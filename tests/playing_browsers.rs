//! Browsers and aiortc on playing connections: they take our offers, and go on playing through
//! renegotiations that recycle m-lines.

mod peer;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use peer::gateway::{Gateway, eventually};
use peer::playing::{names, sections};
use serde_json::{Value, json};
use veilgate::control::{PlayOffer, PlayingId};
use veilgate::metrics::Id;

/// A browser whose pages do what they are told, one step after another.
struct Browser {
    process: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    folder: std::path::PathBuf,
}

impl Browser {
    fn start(kind: &str, package: &str) -> Self {
        // A driver for each: of browsers in node, of aiortc in Python.
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools");
        assert!(
            tools.join("node_modules/puppeteer-core").is_dir(),
            "puppeteer-core is missing. Run: scripts/setup test   (or: cd tests/tools && npm ci)"
        );
        let program = Path::new("/usr/bin").join(package);
        assert!(program.exists(), "{package} is missing. Run: apt-get install -y {package}");
        let folder = std::env::temp_dir().join({
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            format!("veilgate-playing-{}-{number}", std::process::id())
        });
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut command = match kind {
            "aiortc" => {
                let python = tools.join("venv/bin/python");
                assert!(python.exists(), "aiortc is missing. Run: scripts/setup test");
                let mut command = Command::new(python);
                command.arg(tools.join("playing_aiortc.py"));
                command
            }
            _ => {
                let mut command = Command::new("node");
                command.arg(tools.join("playing.mjs"));
                command
            }
        };
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}. Run: scripts/setup test"));
        let stdin = process.stdin.take();
        let stdout = BufReader::new(process.stdout.take().expect("piped"));
        let mut browser = Self { process, stdin, stdout, folder };
        let plan = json!({ "browser": kind, "folder": browser.folder, "page": empty_page() });
        browser.say(&plan);
        browser
    }

    fn say(&mut self, line: &Value) {
        let stdin = self.stdin.as_mut().expect("running");
        writeln!(stdin, "{line}").expect("the driver reads");
    }

    fn step(&mut self, page: &str, step: &str, mut with: Value) -> Value {
        with["page"] = json!(page);
        with["step"] = json!(step);
        self.say(&with);
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the driver answers");
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        assert!(answer["error"].is_null(), "{page} {step}: {answer:#}");
        answer
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The end of its input tells the driver to close what it has launched.
        self.stdin = None;
        let _ended = self.process.wait();
        let _removed = std::fs::remove_dir_all(&self.folder);
    }
}

/// The address of an empty page: capture wants a secure context, which loopback is.
fn empty_page() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let mut lines = BufReader::new(&connection).lines().map_while(Result::ok);
            while lines.next().is_some_and(|line| !line.is_empty()) {}
            let page = "<!doctype html><title>.</title><body>";
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n";
            let answer = format!("{head}content-length: {}\r\n\r\n{page}", page.len());
            let _gone = (&connection).write_all(answer.as_bytes());
        }
    });
    format!("http://{address}/")
}

/// One page that plays, whatever the others publish.
struct Stage {
    publishers: Browser,
    viewer: Browser,
    playing: PlayingId,
    offer: Option<PlayOffer>,
    resources: Vec<(String, String)>,
    /// Last, so that clients can take leave of it.
    gateway: Gateway,
}

impl Stage {
    fn ice(gateway: &mut Gateway, subject: &str) -> Value {
        let minted = gateway.mint(subject);
        let urls = format!("turn:{}?transport=udp", gateway.udp);
        json!({ "urls": urls, "username": minted.username, "credential": minted.credential })
    }

    fn publish(&mut self, name: &str, width: u32, codec: &str) {
        let ice = Self::ice(&mut self.gateway, name);
        let with = json!({ "ice": ice, "width": width, "codec": codec });
        let offer = self.publishers.step(name, "publish", with);
        let sdp = offer["sdp"].as_str().expect("an offer");
        let parsed = name.parse().expect("a name");
        let accepted = self.gateway.control.publish(&parsed, &Gateway::principal(name), sdp);
        let accepted = accepted.expect("agreed");
        self.publishers.step(name, "answered", json!({ "sdp": accepted.answer }));
        self.resources.push((name.to_owned(), accepted.resource));
        let control = self.gateway.control.clone();
        let there = || control.streams_of("lobby").iter().any(|it| it.name.as_str() == name);
        eventually(|| there().then_some(()));
    }

    /// Restarts ICE: the pictures go on, over another path.
    fn restart(&mut self) {
        let control = self.gateway.control.clone();
        let offer = control.restart_playing(&self.playing).expect("lives").expect("an offer");
        self.negotiate(offer);
        eventually(|| (self.gateway.count(Id::SessionIceRestarts) == 1).then_some(()));
    }

    fn negotiate(&mut self, offer: PlayOffer) {
        let control = self.gateway.control.clone();
        let mut next = Some(offer);
        while let Some(offer) = next {
            let ice = Self::ice(&mut self.gateway, "viewer");
            let with = json!({ "ice": ice, "sdp": offer.sdp });
            let answer = self.viewer.step("viewer", "offered", with);
            let sdp = answer["sdp"].as_str().expect("an answer");
            let answered = control.answer_playing(&self.playing, offer.revision, sdp);
            next = answered.unwrap_or_else(|e| panic!("{e}\n{}\n{sdp}", offer.sdp));
            self.offer = Some(offer);
        }
    }

    fn leave(&mut self, name: &str) {
        let place = self.resources.iter().position(|(known, _)| known == name).expect("there");
        let (_, resource) = self.resources.remove(place);
        self.gateway.control.close(&resource, None).expect("it was there");
        let control = self.gateway.control.clone();
        let gone = || control.streams_of("lobby").iter().all(|it| it.name.as_str() != name);
        eventually(|| gone().then_some(()));
    }

    /// Renegotiates, and waits until every picture wanted moves, at its own width.
    fn shows(&mut self, wanted: &[(&str, u64)]) {
        let streams: Vec<_> = wanted.iter().map(|(name, _)| *name).collect();
        let control = self.gateway.control.clone();
        let next = control.subscribe_playing(&self.playing, names(&streams)).expect("lives");
        if let Some(offer) = next {
            self.negotiate(offer);
        }
        let offer = self.offer.clone().expect("offered");
        let before = self.viewer.step("viewer", "stats", json!({}));
        let frames = |stats: &Value, mid: &str| {
            let mut tracks = stats["tracks"].as_array().expect("a list").iter();
            let track = tracks.rfind(|it| it["mid"] == *mid);
            track.map_or((0, 0), |it| {
                (it["frames"].as_u64().unwrap_or(0), it["width"].as_u64().unwrap_or(0))
            })
        };
        let (mut turns, mut last) = (0, Value::Null);
        loop {
            let moves = |(name, width): &(&str, u64)| {
                let track = offer.tracks.iter().find(|track| {
                    track.stream.as_str() == *name
                        && track.kind == veilgate::wire::media::MediaKind::Video
                });
                let mid = &track.expect("offered").mid;
                let (now, seen) = frames(&last, mid);
                now >= frames(&before, mid).0 + 10 && seen == *width
            };
            if !last.is_null() && wanted.iter().all(moves) {
                break;
            }
            turns += 1;
            assert!(turns < 300, "{wanted:?} {offer:?} {last:#}\n{}", offer.sdp);
            std::thread::park_timeout(std::time::Duration::from_millis(100));
            last = self.viewer.step("viewer", "stats", json!({}));
        }
        assert_eq!(last["state"], "connected");
    }
}

fn on_stage(kind: &str, package: &str) -> Stage {
    let gateway = Gateway::start(2);
    let publishers = Browser::start("chromium", "chromium");
    let viewer = Browser::start(kind, package);
    let who = Gateway::principal("viewer");
    let playing = gateway.control.open_playing(&who, "lobby").expect("room for it");
    Stage { publishers, viewer, playing, offer: None, resources: Vec::new(), gateway }
}

/// The m-lines of the last offer: how many, and how many of them send.
fn lines(stage: &Stage) -> (usize, usize) {
    let sections = sections(&stage.offer.as_ref().expect("offered").sdp);
    (sections.len(), sections.iter().filter(|section| section.sends).count())
}

/// The whole life of a playing connection, with publishers of these codecs.
fn plays_on(stage: &mut Stage, [a, b, c]: [&str; 3]) {
    stage.publish("lobby/a", 160, a);
    stage.shows(&[("lobby/a", 160)]);
    assert_eq!(lines(stage), (3, 2));
    stage.publish("lobby/b", 200, b);
    stage.shows(&[("lobby/a", 160), ("lobby/b", 200)]);
    assert_eq!(lines(stage), (5, 4));
    // The first goes: its m-lines are closed, and the picture of the other moves on.
    stage.leave("lobby/a");
    stage.shows(&[("lobby/b", 200)]);
    assert_eq!(lines(stage), (5, 2));
    // The third takes their place, with another codec there than before.
    stage.publish("lobby/c", 240, c);
    stage.shows(&[("lobby/c", 240), ("lobby/b", 200)]);
    assert_eq!(lines(stage), (5, 4));
    // All go, one comes back.
    stage.shows(&[]);
    assert_eq!(lines(stage), (5, 0));
    stage.shows(&[("lobby/b", 200)]);
    assert_eq!(lines(stage), (5, 2));
}

#[test]
fn chromium_plays_on_through_renegotiations_that_recycle_m_lines() {
    let mut stage = on_stage("chromium", "chromium");
    plays_on(&mut stage, ["video/VP8", "video/VP9", "video/H264"]);
    stage.restart();
    stage.shows(&[("lobby/b", 200)]);
    stage.shows(&[("lobby/b", 200), ("lobby/c", 240)]);
}

// Without H.264: Firefox would have to download its decoder.
#[test]
fn firefox_plays_on_through_renegotiations_that_recycle_m_lines() {
    let mut stage = on_stage("firefox", "firefox-esr");
    plays_on(&mut stage, ["video/VP8", "video/VP8", "video/VP9"]);
    stage.restart();
    stage.shows(&[("lobby/b", 200)]);
}

// It has no VP9, and no ICE restart either.
#[test]
fn aiortc_plays_on_through_renegotiations_that_recycle_m_lines() {
    let mut stage = on_stage("aiortc", "chromium");
    plays_on(&mut stage, ["video/VP8", "video/VP8", "video/H264"]);
}
