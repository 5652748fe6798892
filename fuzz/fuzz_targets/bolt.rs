//! A containerd database of a stranger's disk. The meta pages are put right, so that more gets past them.

#![no_main]

use libfuzzer_sys::fuzz_target;

const HEADER: usize = 16;
const META: usize = 56;

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    if bytes.len() < 2 * 4096 {
        return;
    }
    for at in [0, 4096] {
        let Some(meta) = bytes.get_mut(at + HEADER..at + HEADER + META + 8) else { continue };
        // A meta that is none is looked at again and again, with pauses.
        meta[..4].copy_from_slice(&0xed0c_daed_u32.to_le_bytes());
        meta[4..8].copy_from_slice(&2_u32.to_le_bytes());
        meta[8..12].copy_from_slice(&4096_u32.to_le_bytes());
        let sum = meta[..META]
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        meta[META..].copy_from_slice(&sum.to_le_bytes());
    }
    if let Ok(records) = imgmv::internals::containerd::images_in(&bytes) {
        let names: usize = records.iter().map(|record| record.name.len() + record.namespace.len()).sum();
        assert!(names <= 64 * bytes.len(), "{names} bytes of names out of {}", bytes.len());
    }
});
