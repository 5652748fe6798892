//! Compresses the blocks of a layer on several threads and outputs them in order.
//!
//! One thread reads, decompresses and hashes; several threads compress; the calling thread outputs. Each block has its
//! own result channel, and the channels are queued in the order of the blocks. The number of blocks limits the memory:
//! the reader waits for a block that was output.

use super::block::Block;
use super::decoder::LayerReader;
use super::encoder::Compressor;
use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Blocks in addition to those being compressed: one is being filled, one is being output.
const EXTRA_BLOCKS: usize = 2;

/// A block to compress, and the channel for the result.
type Job = (Block, Sender<Result<Block>>);

/// Compresses the rest of `layer` with `threads` threads like `compressor` and passes it to `out`. `first` is a used
/// block, whose buffers are reused. The first failure ends all threads: each waits for a channel, whose other end closes.
pub fn run(
    layer: &mut LayerReader<'_>,
    first: Block,
    compressor: Compressor,
    threads: usize,
    stop: &AtomicBool,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let threads = compressor.threads(threads);
    let block_size = compressor.block_size();
    let mut compressors = vec![compressor];
    while compressors.len() < threads {
        compressors.push(compressors[0].try_clone()?);
    }
    let (free_blocks, next_block) = channel();
    for block in std::iter::once(first).chain(std::iter::repeat_with(Block::default)).take(threads + EXTRA_BLOCKS) {
        free_blocks.send(block).expect("the receiver exists");
    }
    let (jobs, next_job) = channel::<Job>();
    let next_job = Mutex::new(next_job);
    let (results, next_result) = channel();

    thread::scope(|scope| {
        for compressor in compressors {
            let next_job = &next_job;
            scope.spawn(move || compress_jobs(compressor, next_job, stop));
        }
        let reader = scope.spawn(move || read(layer, block_size, &next_block, &jobs, &results));
        let output = {
            let _stop = StopOnDrop(stop);
            output_in_order(next_result, free_blocks, out)
        };
        let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        output.and(read)
    })
}

/// Reads blocks until the end of the layer, or until a receiver is closed.
fn read(
    layer: &mut LayerReader<'_>,
    block_size: usize,
    next_block: &Receiver<Block>,
    jobs: &Sender<Job>,
    results: &Sender<Receiver<Result<Block>>>,
) -> Result<()> {
    while let Ok(mut block) = next_block.recv() {
        let ended = layer.fill(&mut block, block_size)?;
        if block.input.content().is_empty() {
            break;
        }
        let (done, result) = channel();
        if results.send(result).is_err() || jobs.send((block, done)).is_err() || ended {
            break;
        }
    }
    Ok(())
}

/// Runs jobs until the job channel is closed or `stop` is set.
fn compress_jobs(mut compressor: Compressor, next_job: &Mutex<Receiver<Job>>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // The lock is released with this statement, before the work.
        let job = next_job.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((mut block, done)) = job else { return };
        // This fails only after the output ended, and then no job follows.
        let _ = done.send(compressor.compress(&mut block).map(|()| block));
    }
}

/// Passes the blocks to `out` in the order in which they were read.
fn output_in_order(
    results: Receiver<Receiver<Result<Block>>>,
    free_blocks: Sender<Block>,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    for result in results {
        let block = result.recv().map_err(|_| Error::failed("a compression thread panicked"))??;
        out(block.output.content())?;
        // This fails if the reader has ended.
        let _ = free_blocks.send(block);
    }
    Ok(())
}

/// Sets the flag when the output ends for any reason, including a panic.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
