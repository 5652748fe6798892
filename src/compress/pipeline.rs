//! Blocks through several threads and out again in order. One thread reads, unpacks and hashes; some pack; the caller's
//! thread hands on. Each block carries its own way back, so order needs no counting, and the number of blocks there
//! are bounds everything: the reader waits for one that has come home.

use super::block::Block;
use super::decoder::Unpacked;
use super::encoder::Packer;
use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Blocks beyond those being packed: one being filled, one being handed on.
const BETWEEN: usize = 2;

/// A block to be packed, and where its taker waits.
type Order = (Block, Sender<Result<Block>>);

/// Packs what is left of `layer` with `threads` threads like `packer` and hands it to `out`. `used` is a block to
/// begin with. Whoever fails first ends them all: every wait is for the other end of a channel, and ends with it.
pub fn run(
    layer: &mut Unpacked<'_>,
    used: Block,
    packer: Packer,
    threads: usize,
    stop: &AtomicBool,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let threads = packer.threads(threads);
    let block_size = packer.block_size();
    let mut packers = vec![packer];
    while packers.len() < threads {
        packers.push(packers[0].twin()?);
    }
    let (home, idle) = channel();
    for block in std::iter::once(used).chain(std::iter::repeat_with(Block::default)).take(threads + BETWEEN) {
        home.send(block).expect("the receiver is at hand");
    }
    let (orders, open) = channel::<Order>();
    let open = Mutex::new(open);
    let (ahead, coming) = channel();

    thread::scope(|scope| {
        for packer in packers {
            let open = &open;
            scope.spawn(move || pack(packer, open, stop));
        }
        let reader = scope.spawn(move || read(layer, block_size, &idle, &orders, &ahead));
        let handed = {
            let _stop = Stop(stop);
            hand_on(coming, home, out)
        };
        let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        handed.and(read)
    })
}

/// Reads to the layer's end, or until nobody wants it any more.
fn read(
    layer: &mut Unpacked<'_>,
    block_size: usize,
    idle: &Receiver<Block>,
    orders: &Sender<Order>,
    ahead: &Sender<Receiver<Result<Block>>>,
) -> Result<()> {
    while let Ok(mut block) = idle.recv() {
        let ended = layer.fill(&mut block, block_size)?;
        if block.raw().is_empty() {
            break;
        }
        let (done, waiting) = channel();
        if ahead.send(waiting).is_err() || orders.send((block, done)).is_err() || ended {
            break;
        }
    }
    Ok(())
}

/// Packs one order after the other until no more can come, or until what was ordered is wanted no more.
fn pack(mut packer: Packer, open: &Mutex<Receiver<Order>>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // The lock is let go with this statement, before the work.
        let order = open.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((mut block, done)) = order else { return };
        // Fails when the taker has given up; then there will be no more orders either.
        let _ = done.send(packer.pack(&mut block).map(|()| block));
    }
}

/// Hands the blocks on in the order in which they were read.
fn hand_on(
    coming: Receiver<Receiver<Result<Block>>>,
    home: Sender<Block>,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    for block in coming {
        let block = block.recv().map_err(|_| Error::failed("a packing thread panicked"))??;
        out(block.packed())?;
        // Fails when the reader is through.
        let _ = home.send(block);
    }
    Ok(())
}

/// Tells the other threads, however the caller's part ends, that nothing is wanted of them any more.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
