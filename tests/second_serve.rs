//! A second process on the same port would steal half the packets without a word: it must refuse.

mod common;

use common::{Gateway, serve_arguments, veilgate};

#[test]
fn second_serve_on_the_same_port_refuses_and_names_the_process_that_holds_it() {
    let gateway = Gateway::start(1);
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = veilgate();
    command.args(serve_arguments(folder.path(), 1));
    // Everything but the UDP port is free.
    for (from, to) in [("10.78.0.1:8443", "10.78.0.1:9443"), ("127.0.0.1:9641", "127.0.0.1:9642")] {
        let args = command.get_args().map(|a| a.to_str().expect("utf-8").replace(from, to));
        let args: Vec<String> = args.collect();
        command = veilgate();
        command.args(args);
    }
    let output = gateway.network.as_gateway(|| command.output()).expect("it ends by itself");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(&gateway.pid().to_string()), "names the holder's pid: {told}");
    assert!(told.contains("3478"), "names the port: {told}");
    let ready = gateway.loopback_get("/readyz").map(|(status, _)| status);
    assert_eq!(ready, Some(200), "the first one goes on");
    assert_eq!(gateway.sockets("-unlp").len(), 1, "and has the port alone");
}
