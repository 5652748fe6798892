//! Opening a DST.

use super::{NetworkOptions, SinkOptions, access_to};
use crate::cli::address::Address;
use crate::cli::context::CliRun;
use crate::cli::options::{LayerOptions, Transfer};
use crate::sink::Sink;
use crate::transport::address::DeletableNames;
use crate::transport::engine::Engine;
use crate::transport::options::{ReadOptions, WriteOptions};
use crate::transport::registry::Access;
use crate::{Error, Result};

/// The options of a copy that concern how a DST is written.
pub struct Written<'o> {
    pub transfer: &'o Transfer,
    pub layers: &'o LayerOptions,
    /// See [`WriteOptions::waits_for_uploads`].
    pub waits_for_uploads: bool,
}

/// Opens `address` as a DST.
pub fn sink(
    address: &dyn Address,
    into: &SinkOptions,
    network: &NetworkOptions,
    options: &Written<'_>,
    run: &CliRun,
) -> Result<Box<dyn Sink>> {
    let access = move |host: &str, repository: &str| {
        let chunk = into.push.chunk_size.map(|size| size.0);
        Ok(Access { chunk_bytes: chunk, ..access_to(host, repository, &into.registry.options(), network, run)? })
    };
    let Written { transfer, layers, waits_for_uploads } = *options;
    let loading = &into.load;
    let options = WriteOptions {
        access: Box::new(access),
        engine: loading.engine.map(Engine::from),
        address: loading.dst_address.as_deref(),
        namespace: loading.namespace.as_deref(),
        remote_command: loading.remote_command.as_deref(),
        wire_compression: loading.wire.compression(),
        dry_run: transfer.dry_run,
        verify: transfer.verify,
        waits_for_uploads,
        partial_lifetime: transfer.partial_lifetime(),
        level: layers.level.filter(|_| layers.compress.is_none()),
    };
    address.sink(&options, &network.context(run))
}

/// Opens `address`, a DST, to delete names that a sync does not want there.
pub fn deletable_names(
    address: &dyn Address,
    into: &SinkOptions,
    network: &NetworkOptions,
    run: &CliRun,
) -> Result<DeletableNames> {
    let access =
        move |host: &str, repository: &str| access_to(host, repository, &into.registry.options(), network, run);
    let options = ReadOptions {
        access: Box::new(access),
        mirrors: &[],
        storage_root: None,
        address: None,
        namespace: None,
        engine: None,
    };
    address.deletable_names(&options, &network.context(run))
}

/// Reserves standard output for an archive.
pub fn stdout_for_archive(run: &CliRun) -> Result<()> {
    run.answer.leave_to_archive();
    match run.answer.json() {
        true => Err(Error::usage(
            "--json and the archive both need standard output; write the archive to a file, or use --digest-file",
        )),
        false => Ok(()),
    }
}
