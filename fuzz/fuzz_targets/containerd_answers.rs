//! The bytes that a hostile containerd sends on its socket: frames, messages, a status.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    imgmv::internals::containerd::decode_answers(bytes);
});
