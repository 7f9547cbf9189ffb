//! The drivers of foreign clients in `tests/tools`: a plan goes in as one line of JSON, events come
//! out as lines of JSON, and the end of stdin tells them to finish.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::link::Link;
use super::{Gateway, HOST, need};

/// Starting four browsers on two busy cores takes this long at worst.
const FLOWING: Duration = Duration::from_secs(120);
/// From there to the result, beyond the seconds of the plan.
const RESULT: Duration = Duration::from_secs(90);

/// A driver under way. Dropped, it is killed.
#[derive(Debug)]
pub struct Tool {
    process: Child,
    stdin: Option<ChildStdin>,
    events: Receiver<Value>,
    name: &'static str,
    seconds: u64,
}

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools")
}

impl Tool {
    /// Browsers: publishers and players of one plan.
    pub fn browsers(gateway: &Gateway, plan: &Value) -> Self {
        Self::node(gateway, "call.mjs", plan)
    }

    /// A browser that uses the page as a person would.
    pub fn page(gateway: &Gateway, plan: &Value) -> Self {
        Self::node(gateway, "page.mjs", plan)
    }

    /// Browsers in a sealed call with each other.
    pub fn sealed(gateway: &Gateway, plan: &Value) -> Self {
        Self::node(gateway, "sealed.mjs", plan)
    }

    /// A driver that node runs, browsers or not.
    pub fn node(gateway: &Gateway, script: &'static str, plan: &Value) -> Self {
        Self::node_at(gateway, None, script, plan)
    }

    /// As [`Self::node`], behind a bad link.
    pub fn node_behind(link: &Link, gateway: &Gateway, script: &'static str, plan: &Value) -> Self {
        Self::node_at(gateway, Some(link), script, plan)
    }

    fn node_at(gateway: &Gateway, link: Option<&Link>, script: &'static str, plan: &Value) -> Self {
        need("node", "nodejs");
        need("chromium", "chromium");
        need("firefox-esr", "firefox-esr");
        let tools = tools();
        assert!(
            tools.join("node_modules/puppeteer-core").is_dir(),
            "puppeteer-core is missing. Run: scripts/setup test   (or: cd tests/tools && npm ci)"
        );
        need("unshare", "util-linux");
        need("certutil", "libnss3-tools");
        // A hosts file of their own, in a mount namespace of their own.
        let hosts = gateway.folder().join("hosts");
        // Chromium asks for names of TURN over UDP with a full stop at their end.
        let lines = format!("127.0.0.1 localhost\n{} {HOST} {HOST}.\n", gateway.network.host);
        std::fs::write(&hosts, lines).expect("a file");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec node \"$1\""]);
        command.arg(hosts).arg(tools.join(script));
        Self::spawn_at(link, script, command, gateway, plan)
    }

    /// aiortc, publishing or playing.
    pub fn aiortc(gateway: &Gateway, plan: &Value) -> Self {
        Self::python(gateway, "aiortc_call.py", plan)
    }

    /// A driver of aiortc or aioice.
    pub fn python(gateway: &Gateway, script: &'static str, plan: &Value) -> Self {
        let tools = tools();
        let python = tools.join("venv/bin/python");
        assert!(
            python.exists(),
            "aiortc is missing. Run: scripts/setup test   (it makes tests/tools/venv)"
        );
        let mut command = Command::new(python);
        command.arg(tools.join(script));
        Self::spawn(script, command, gateway, plan)
    }

    /// GStreamer's webrtcbin, publishing. Debian's Python has its bindings, no other one has.
    pub fn gstreamer(gateway: &Gateway, plan: &Value) -> Self {
        const PYTHON: &str = "/usr/bin/python3";
        let probe = "import gi; gi.require_version('GstWebRTC', '1.0'); gi.require_version('Gst', '1.0')\n\
                     from gi.repository import Gst, GstWebRTC; Gst.init(None)\n\
                     for name in ('webrtcbin', 'nicesrc', 'vp8enc', 'opusenc'):\n    \
                     assert Gst.ElementFactory.find(name), name";
        let found = Command::new(PYTHON).args(["-c", probe]).output();
        assert!(
            found.is_ok_and(|found| found.status.success()),
            "GStreamer's webrtcbin is missing. Run: scripts/setup test   (or: apt-get install -y \
             python3-gi gir1.2-gst-plugins-bad-1.0 gstreamer1.0-nice gstreamer1.0-plugins-bad \
             gstreamer1.0-plugins-good gstreamer1.0-plugins-base)"
        );
        let mut command = Command::new(PYTHON);
        command.arg(tools().join("gstreamer_call.py"));
        Self::spawn("gstreamer_call.py", command, gateway, plan)
    }

    /// ffmpeg's WHIP muxer, publishing.
    pub fn ffmpeg(gateway: &Gateway, plan: &Value) -> Self {
        let python = tools().join("venv/bin/python");
        let found = Command::new(&python).args(["-c", "import imageio_ffmpeg"]).output();
        assert!(
            found.is_ok_and(|found| found.status.success()),
            "imageio-ffmpeg is missing. Run: scripts/setup test   (it makes tests/tools/venv)"
        );
        Self::python(gateway, "ffmpeg_whip.py", plan)
    }

    /// libwebrtc in Node, publishing.
    pub fn wrtc(gateway: &Gateway, plan: &Value) -> Self {
        need("node", "nodejs");
        let tools = tools();
        assert!(
            tools.join("node_modules/@roamhq/wrtc").is_dir(),
            "@roamhq/wrtc is missing. Run: scripts/setup test   (or: cd tests/tools && npm ci)"
        );
        let mut command = Command::new("node");
        command.arg(tools.join("wrtc_call.mjs"));
        Self::spawn("wrtc_call.mjs", command, gateway, plan)
    }

    fn spawn(name: &'static str, command: Command, gateway: &Gateway, plan: &Value) -> Self {
        Self::spawn_at(None, name, command, gateway, plan)
    }

    fn spawn_at(
        link: Option<&Link>,
        name: &'static str,
        mut command: Command,
        gateway: &Gateway,
        plan: &Value,
    ) -> Self {
        let mut plan = plan.clone();
        plan["page"] = json!(gateway.page());
        plan["ca"] = gateway.note()["ca"].clone();
        plan["folder"] = json!(gateway.folder());
        let seconds = plan["seconds"].as_u64().unwrap_or(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let spawned = match link {
            Some(link) => link.as_client(|| command.spawn()),
            None => gateway.network.as_client(|| command.spawn()),
        };
        let mut process = spawned.expect("the driver starts");
        let mut stdin = process.stdin.take().expect("piped");
        writeln!(stdin, "{plan}").expect("the driver reads its plan");
        let stdout = BufReader::new(process.stdout.take().expect("piped"));
        let (sender, events) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Self { process, stdin: Some(stdin), events, name, seconds }
    }

    /// The next event, which must be this one.
    pub fn wait(&self, event: &str, patience: Duration) -> Value {
        let got = self.events.recv_timeout(patience).unwrap_or_else(|error| {
            panic!("{} said nothing where \"{event}\" was due ({error})", self.name)
        });
        assert_eq!(got["event"], event, "{}: {got:#}", self.name);
        got
    }

    /// What was said since and nobody waited for.
    pub fn said(&self) -> impl Iterator<Item = Value> {
        self.events.try_iter()
    }

    /// Waits until media flows on all that the plan asked for; returns what the driver adds.
    pub fn flowing(&self) -> Value {
        self.wait("flowing", FLOWING)
    }

    /// Gives the driver a command line and returns the event that answers it.
    pub fn ask(&mut self, command: &str, event: &str) -> Value {
        let stdin = self.stdin.as_mut().expect("not told to finish");
        writeln!(stdin, "{command}").expect("the driver reads its commands");
        self.wait(event, FLOWING)
    }

    /// Waits for the plan's seconds to pass and returns what was seen.
    pub fn result(self) -> Value {
        self.wait("result", RESULT + Duration::from_secs(self.seconds))
    }

    /// Ends a driver that runs until it is told to, and returns what was seen.
    pub fn finish(mut self) -> Value {
        self.stdin = None;
        self.wait("result", RESULT)
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
