//! Lines of megabytes, which are read piece by piece.

use super::tar_split::{base64, gzip};
use super::{LABEL, file, noise};
use crate::error::{Error, Result};
use crate::image::Digest;
use crate::tarsplit::{LayerTar, Measured, Recorded, measure};
use std::io::Read;

/// Both orders of keys: docker's, and the alphabetical one.
fn line(payload: &str, position: usize, order: usize) -> String {
    match order {
        0 => format!("{{\"type\":2,\"payload\":\"{payload}\",\"position\":{position}}}\n"),
        _ => format!("{{\"payload\":\"{payload}\",\"position\":{position},\"type\":2}}\n"),
    }
}

fn read(text: &str, piece: usize) -> Result<Vec<u8>> {
    let measured = measure(file(&gzip(text.as_bytes())), Recorded::Unknown, LABEL)?;
    let mut tar = open(text, &measured);
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; piece]);
    loop {
        // What waits for a client needs little memory.
        assert!(tar.memory_bytes() < 1 << 20, "{}", tar.memory_bytes());
        match tar.read(&mut buffer).map_err(Error::from)? {
            0 => break,
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
    assert_eq!(bytes.len() as u64, measured.bytes);
    Ok(bytes)
}

fn open(text: &str, measured: &Measured) -> LayerTar<'static> {
    LayerTar::new(file(text.as_bytes()), measured, Digest::of(b""), LABEL, |_| Ok(None)).unwrap()
}

#[test]
fn segments_of_any_length_are_read() {
    // Around the length at which a line is read piece by piece, whose last part is shorter or longer than a buffer.
    let whole = 256 * 1024 / 4 * 3;
    for bytes in (whole - 60..whole + 20).step_by(7).chain([300_000, 400_001, 3_000_002]) {
        let segment = noise(bytes);
        for order in [0, 1] {
            let text = line(&base64(&segment), 0, order) + &line("AAAA", 1, order) + &line(&base64(&segment), 2, order);
            let found = read(&text, 70_000).unwrap();
            assert!(found == [&segment[..], &[0; 3], &segment].concat(), "{bytes} {order}");
        }
    }
    let segment = noise(9 << 20);
    assert!(read(&line(&base64(&segment), 0, 0), 1 << 20).unwrap() == segment);
}

#[test]
fn a_long_segment_is_read_from_any_offset() {
    let segment = noise(1_000_000);
    let text = line(&base64(&segment), 0, 0) + &line("AAAA", 1, 0);
    let measured = measure(file(text.as_bytes()), Recorded::Unknown, LABEL).unwrap();
    for from in [1, 200_000, 999_999, 1_000_001] {
        let (mut tar, mut rest) = (open(&text, &measured), Vec::new());
        tar.skip(from).unwrap();
        tar.read_to_end(&mut rest).unwrap();
        assert!(rest == [&segment[..], &[0; 3]].concat()[from as usize..], "{from}");
    }
}

#[test]
fn long_lines_that_are_not_valid_are_refused() {
    let payload = base64(&noise(600_000));
    let good = line(&payload, 0, 0);
    let refused = |text: &str, told: &str| {
        let error = read(text, 50_000).expect_err(told).to_string();
        assert!(error.starts_with(LABEL) && error.contains(told), "{told}: {error}");
        assert!(error.len() < 1000, "{}", error.len());
    };
    refused(&line(&payload, 3, 0), "invalid line 0: its position is 3");
    refused(&line(&payload, 3, 1), "invalid line 0: its position is 3");
    refused(&good.replace("\"type\":2", "\"type\":1"), "invalid line 0: its type is 1");
    refused(&good.replace("\"position\":0}", "\"position\":0"), "invalid line 0");
    refused(&good.replace("\"position\":0", &format!("\"position\":0,\"x\":\"{payload}\"")), "behind its payload");
    refused(&(payload[..400_000].to_owned() + "%" + &payload[400_000..]), "not a segment");
    refused(&line(&(payload[..400_000].to_owned() + "%%%%" + &payload[400_000..]), 0, 0), "not base64");
    refused(&good[..500_000], "its tar-split is damaged");
    refused(&line(&"A".repeat(17 << 20), 0, 0), "line of more than 16777216 bytes");
    refused(&format!("{{\"type\":9,\"payload\":\"{}\"}}", "\\\"".repeat(200_000)), "invalid line 0");
    refused(&format!("{{\"type\":\"{}\",\"position\":0}}", "x".repeat(100_000)), "invalid line 0");
}
