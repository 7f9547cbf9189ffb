//! What a client is sent is bounded like what it sends, on the way out of a shard.

mod peer;

use std::time::Duration;

use peer::Peer;
use peer::gateway::{Gateway, MEDIA, eventually};
use veilgate::auth::turn::Class;
use veilgate::metrics::Id;
use veilgate::relay::{Limits, Rate};

#[test]
fn client_that_many_send_to_gets_its_own_rate_and_no_more() {
    const BURST: u64 = 50;
    // Half a second of it may come at once.
    let allocation_rate = Rate { packets: 2 * BURST as u32, bits: 0 };
    let mut gateway = Gateway::start_with(1, Limits { allocation_rate, ..Limits::default() });
    let mut member = |name: &str| {
        let minted = gateway.mint_for(name, Some("sealed"), Class::Room);
        Peer::allocate(gateway.udp, MEDIA, &minted)
    };
    let mut victim = member("victim");
    let mut senders: Vec<_> = (0..4).map(|n| member(&format!("sender{n}"))).collect();
    victim.bind_channel_to(senders[0].relayed);
    for sender in &mut senders {
        sender.bind_channel_to(victim.relayed);
        // No more than it may itself.
        for _ in 0..BURST {
            sender.send_relayed(b"all at once");
        }
    }
    let sent = 4 * BURST;
    eventually(|| (gateway.count(Id::RelayPacketsIn) == sent).then_some(()));
    let dropped = gateway.count(Id::RelayDropPacketRateOut);
    let out = gateway.count(Id::RelayPacketsOut);
    assert_eq!((out + dropped, gateway.count(Id::RelayDropPacketRate)), (sent, 0));
    // A slow machine takes longer over it, and the bucket fills a little meanwhile.
    assert!((BURST..2 * BURST).contains(&out), "{out}");
    // What came is what was counted.
    let mut came = 0;
    while victim.try_recv(Duration::from_millis(200)).is_some() {
        came += 1;
    }
    assert_eq!(came, out);
    // Later there is room again.
    eventually(|| {
        senders[0].send_relayed(b"later");
        victim.try_recv(Duration::from_millis(200))
    });
}
