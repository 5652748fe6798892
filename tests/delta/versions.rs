//! Cold, again, and the next version, into every engine.

use crate::engines::Kind;
use crate::world::{APP, BESIDE, Cost, Far, LAYER, noise, version};
use imgmv::Coding;

fn everywhere(check: impl Fn(Far)) {
    for kind in Kind::ALL {
        if let Some(far) = Far::start(kind) {
            check(far);
        }
    }
}

/// What `cost` may be when so many layers had to go.
fn within(kind: Kind, what: &str, cost: &Cost, layers: u64) {
    let moved = layers * (LAYER as u64 + 2048);
    let bytes = cost.up + cost.down;
    println!("{kind:?}: {what}: {} up, {} down, {} exchanges", cost.up, cost.down, cost.exchanges);
    assert!(
        bytes <= moved + moved / 100 + BESIDE,
        "{kind:?}: {what}: {} up and {} down\n{}",
        cost.up,
        cost.down,
        cost.said
    );
}

#[test]
fn the_next_version_costs_what_is_new_in_it() {
    everywhere(|far| {
        let kind = far.peer.kind;
        let (one, two) = (version(&[1, 2, 3], Coding::Raw), version(&[1, 2, 3, 4], Coding::Raw));
        let cold = far.copy(&one).unwrap();
        within(kind, "cold", &cold, 3);
        let first = far.peer.id(APP);
        let again = far.copy(&one).unwrap();
        within(kind, "again", &again, 0);
        assert_eq!((again.report.transferred.blobs, again.exchanges), (0, 2), "{kind:?}: {}", again.said);
        assert_eq!(far.peer.id(APP), first, "{kind:?}");
        let next = far.copy(&two).unwrap();
        within(kind, "next version", &next, 1);
        assert_ne!(far.peer.id(APP), first, "{kind:?}");
        let layers: Vec<Vec<u8>> = [1, 2, 3, 4].map(|seed| noise(seed, LAYER)).to_vec();
        far.is_whole(APP, &layers);
        assert_eq!(far.left_over(), "", "{kind:?}");
        assert_eq!(next.report.images[0].digest, two.roots[0].descriptor.digest);
    });
}
