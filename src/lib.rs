//! imgmv copies container images from any source to any sink.
//!
//! [`open_source`] and [`open_sink`] open the addresses of the command line, [`copy`] copies between them. Other sources
//! and sinks implement [`Store`] and [`Sink`]. The modules are described in ARCHITECTURE.md; `cli` is the only code that
//! prints.

#![forbid(unsafe_code)]

mod blob_files;
mod cancel;
mod cli;
mod compress;
mod copy;
mod disk;
mod error;
mod fanout;
mod image;
mod message;
mod parallel;
mod progress;
mod rate_limit;
mod remote;
mod serve;
mod sets;
mod sink;
mod source;
mod sync;
mod tag_filter;
mod tarball;
mod tarsplit;
mod transfer;
mod transport;

pub use cancel::Cancel;
pub use cli::main;
pub use compress::layer_cache::LayerCache;
pub use copy::convert::Format;
pub use copy::{Compress, Foreign, Naming, Options, Platforms, Referrers, Report, Source, Sparse, copy, copy_all};
pub use error::{Error, Kind, Result};
pub use image::{
    Attached, Coding, Descriptor, Digest, Hasher, Image, Manifest, Name, Platform, Reference, ReferrerType,
};
pub use progress::{Event, Outcome, Silent, Watch};
pub use sink::{Begin, Finish, Missing, Order, Shape, Sink, SinkCapabilities, Upcoming};
pub use source::{Claim, Origin, Profile, ReferrerList, Root, Selector, Store, TagListing};
pub use tarball::ArchiveStream;
pub use transfer::{BlobWriter, Verified};
pub use transport::open::{open_sink, open_source};

/// Parts that the tests, benchmarks and fuzz targets of this package use; not an interface of the library.
#[doc(hidden)]
#[allow(missing_docs)]
pub mod internals {
    pub mod archive {
        pub use crate::transport::archive::{ArchiveSink, Input, ResumeOptions, open, prune, retag};
    }
    pub mod compress {
        pub use crate::compress::recompress;
    }
    pub mod containerd {
        pub use crate::transport::containerd::socket::{
            Connection, Limits, LocalSocket, SocketSink, SocketStore, decode_answers,
        };
        pub use crate::transport::containerd::{ContainerdStore, images_in};
    }
    pub mod containers_storage {
        pub use crate::transport::containers_storage::ContainersStorageStore;
    }
    pub mod copy {
        pub use crate::copy::convert;
    }
    pub mod disk {
        pub use crate::disk::rooted::Resolution;
    }
    pub mod docker_dir {
        pub use crate::transport::docker_dir::DockerDirStore;
    }
    pub mod engine {
        pub use crate::transport::engine::{
            DetectedEngine, Engine, EngineSink, FetchStore, Loader, WireCompression, detect, save,
        };
    }
    pub mod fanout {
        pub use crate::fanout::{FanoutLimits, SharedStore, Subscriber, TeeReader, split};
    }
    pub mod image {
        pub use crate::image::{
            Algorithm, Config, LayoutIndex, MAX_MANIFEST_BYTES, layer_coding, media_type, with_coding,
        };
    }
    pub mod layout {
        pub use crate::transport::layout::{BlobCheck, Durable, LayoutSink, LayoutStore};
    }
    pub mod registry {
        pub use crate::transport::registry::auth::challenge;
        pub use crate::transport::registry::configuration;
        pub use crate::transport::registry::{
            Access, Credentials, ForeignStore, Insecure, MirroredStore, Registry, RegistryPool, RepositorySink,
            RepositoryStore, Secret, login, logout,
        };
    }
    pub mod registry_dir {
        pub use crate::source::Repositories;
        pub use crate::transport::registry_dir::{RegistryDirSink, RegistryDirStore, TreeRepositories};
    }
    pub mod sets {
        pub use crate::sets::{
            Entry, Format, HostOptions, ImageSet, ListedTag, Login, MAX_DOCUMENT_BYTES, ReadOptions, Tags,
            is_document_word, pattern, read,
        };
    }
    pub mod rate_limit {
        pub use crate::rate_limit::{Limit, Limited};
    }
    pub mod remote {
        pub use crate::remote::builtin;
        pub use crate::remote::{Host, Local, OpenSsh, Running, SshTarget, capture, quote, split_words};
    }
    pub mod source {
        pub use crate::source::{Several, Wrapper, select};
    }
    pub mod tag_filter {
        pub use crate::tag_filter::{TagFilter, TagPattern, TagSelection, VersionRange};
    }
    pub mod tarball {
        pub use crate::tarball::{ArchiveCompression, ArchiveStore, StreamedStore};
    }
    pub mod transfer {
        pub use crate::transfer::{Budget, IncomingBlob, TransferContext, transfer};
    }
}
