//! The tests' bad line as a program, for `benches/weak.py`: passes HTTP on to SERVER, with the faults that it is given.
//!
//!     fault_proxy HOST:PORT [latency=MS] [rate=BYTES] [cut-every=BYTES] [tokens=1] [signed=1] [body-limit=BYTES]
//!         [refuse-first=TIMES/STATUS] [METHOD,PART,TIMES,ILL[=VALUE]]...
//!
//! ILL is cut, reset, cut-upload, stall, flip (VALUE: bytes), drip (VALUE: ms a byte), page, status (VALUE: STATUS or STATUS/RETRY-AFTER) or expired.
//! Prints its own address; when standard input ends, a line of JSON with what went over the wire, and ends.

#[path = "../tests/support/fault_proxy.rs"]
mod fault_proxy;

use fault_proxy::{End, Fault, Ill, Line, Proxy, TooLarge};
use std::io::Read;
use std::time::Duration;

fn main() -> Result<(), String> {
    let mut words = std::env::args().skip(1);
    let proxy = Proxy::start(&words.next().ok_or("which HOST:PORT?")?);
    let mut line = Line::default();
    for word in words {
        match word.split_once('=') {
            Some(("latency", ms)) => line.latency = Duration::from_millis(number(ms)?),
            Some(("rate", rate)) => line.rate = Some(number(rate)?),
            Some(("cut-every", bytes)) => line.cut_every = Some((number(bytes)?, End::Fin)),
            Some(("tokens", wanted)) => line.tokens = number(wanted)? > 0,
            Some(("signed", wanted)) => line.signed = number(wanted)? > 0,
            Some(("body-limit", bytes)) => line.body_limit = Some((number(bytes)?, TooLarge::Status)),
            Some(("refuse-first", value)) => {
                let (times, status) = value.split_once('/').ok_or("refuse-first=TIMES/STATUS")?;
                line.refuses_first = Some((number(times)? as usize, number(status)? as u16, None));
            }
            _ => proxy.does(fault(&word)?),
        }
    }
    proxy.is(line);
    println!("{}", proxy.host());
    std::io::stdin().read_to_end(&mut Vec::new()).map_err(|error| error.to_string())?;
    let traffic = proxy.traffic();
    let requests = proxy.seen("", "").len();
    println!(
        r#"{{"requests":{requests},"connections":{},"up":{},"down":{},"at_once":{}}}"#,
        traffic.connections, traffic.up, traffic.down, traffic.most_at_once
    );
    Ok(())
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

fn fault(word: &str) -> Result<Fault, String> {
    let [method, part, times, ill] = word.splitn(4, ',').collect::<Vec<_>>()[..] else {
        return Err(format!("{word:?} is not METHOD,PART,TIMES,ILL"));
    };
    let (ill, value) = ill.split_once('=').unwrap_or((ill, "0"));
    let ill = match ill {
        "cut" => Ill::Cut { after: number(value)?, end: End::Fin },
        "reset" => Ill::Cut { after: number(value)?, end: End::Rst },
        "cut-upload" => Ill::CutUpload { after: number(value)?, end: End::Fin },
        "stall" => Ill::Stall { after: number(value)? },
        "flip" => Ill::Flip { at: number(value)? },
        "drip" => Ill::Drip { every: Duration::from_millis(number(value)?) },
        "page" => Ill::Page,
        "expired" => Ill::Expired,
        "status" => {
            let (status, wish) = value.split_once('/').map_or((value, None), |(status, wish)| (status, Some(wish)));
            Ill::Status { status: number(status)? as u16, retry_after: wish.map(str::to_owned) }
        }
        other => return Err(format!("{other:?} is no ill")),
    };
    Ok(Fault::times(number(times)? as usize, method, part, ill))
}
