//! A containerd database of a stranger's disk. The sums of the meta pages are put right, so that more gets past them.

#![no_main]

use libfuzzer_sys::fuzz_target;

const HEADER: usize = 16;
const META: usize = 56;

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    for at in [0, 4096] {
        let Some(meta) = bytes.get_mut(at + HEADER..at + HEADER + META + 8) else { continue };
        let sum = meta[..META]
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        meta[META..].copy_from_slice(&sum.to_le_bytes());
    }
    if let Ok(records) = imgmv::transport::containerd::images_in(&bytes) {
        let names: usize = records.iter().map(|record| record.name.len() + record.namespace.len()).sum();
        assert!(names <= 64 * bytes.len(), "{names} bytes of names out of {}", bytes.len());
    }
});
