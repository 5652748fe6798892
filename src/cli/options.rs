//! Groups of options that several verbs share.

use crate::disk::{DAY_SECONDS, PARTIAL_LIFETIME_DAYS};
use crate::image::Coding;
use crate::transport::engine::{Engine, WireCompression};
use clap::builder::{FalseyValueParser, NonEmptyStringValueParser};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The options for the registry on one side of a copy.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// The option that gives the user, for messages.
    pub flag: &'static str,
    pub creds: Option<String>,
    /// From the environment variable.
    pub password: Option<String>,
    pub password_stdin: bool,
    pub password_file: Option<PathBuf>,
    /// None if the option is not given.
    pub insecure: Option<bool>,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// Defines the registry options of one side of a copy. The sides differ in the prefix.
macro_rules! side {
    ($name:ident, $prefix:literal, $env:literal, $heading:literal) => {
        #[derive(Debug, Clone, Default, Args)]
        #[command(next_help_heading = $heading)]
        pub struct $name {
            #[arg(
                id = concat!($prefix, "-creds"), long, value_name = "USER[:PASSWORD]",
                env = concat!($env, "_CREDS"), hide_env_values = true,
                help = concat!(
                    "User name at the registry. The password may also come from ", $env, "_PASSWORD, --", $prefix,
                    "-password-stdin or --", $prefix, "-password-file. By default imgmv uses the credentials files of \
                     docker and of podman"
                )
            )]
            creds: Option<String>,
            #[arg(
                id = concat!($prefix, "-password-stdin"), long, env = concat!($env, "_PASSWORD_STDIN"),
                value_parser = FalseyValueParser::new(), action = clap::ArgAction::SetTrue,
                help = "Read the password from the first line of standard input"
            )]
            password_stdin: bool,
            #[arg(
                id = concat!($prefix, "-password-file"), long, value_name = "FILE",
                env = concat!($env, "_PASSWORD_FILE"), help = "Read the password from the first line of FILE"
            )]
            password_file: Option<PathBuf>,
            #[arg(
                id = concat!($prefix, "-insecure"), long, env = concat!($env, "_INSECURE"), value_name = "true|false",
                num_args = 0..=1, require_equals = true, default_missing_value = "true",
                help = "Allow plain HTTP and invalid certificates (loopback addresses may always use plain HTTP). By \
                        default this applies to registries that podman's registries.conf, docker's daemon.json or \
                        containerd's hosts.toml list as insecure; false: to none"
            )]
            insecure: Option<YesOrNo>,
            #[arg(
                id = concat!($prefix, "-ca"), long, value_name = "FILE", env = concat!($env, "_CA"),
                help = "Also trust the certificate authorities in FILE (PEM)"
            )]
            ca: Option<PathBuf>,
            #[arg(
                id = concat!($prefix, "-cert"), long, value_name = "FILE", env = concat!($env, "_CERT"),
                requires = concat!($prefix, "-key"), help = "Client certificate for the registry (PEM)"
            )]
            cert: Option<PathBuf>,
            #[arg(
                id = concat!($prefix, "-key"), long, value_name = "FILE", env = concat!($env, "_KEY"),
                requires = concat!($prefix, "-cert"), help = "Private key of the client certificate (PEM)"
            )]
            key: Option<PathBuf>,
        }

        impl $name {
            pub fn options(&self) -> RegistryOptions {
                RegistryOptions {
                    flag: concat!("--", $prefix, "-creds"),
                    creds: self.creds.clone(),
                    password: std::env::var(concat!($env, "_PASSWORD")).ok().filter(|password| !password.is_empty()),
                    password_stdin: self.password_stdin,
                    password_file: self.password_file.clone(),
                    insecure: self.insecure.and_then(YesOrNo::value),
                    ca: self.ca.clone(),
                    cert: self.cert.clone(),
                    key: self.key.clone(),
                }
            }
        }
    };
}

side!(SourceRegistry, "src", "IMGMV_SRC", "Source registry");
side!(DestinationRegistry, "dst", "IMGMV_DST", "Destination registry");

/// Options for all network connections.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Network")]
pub struct Network {
    /// Credentials file, instead of docker's config.json and podman's auth.json
    #[arg(long, value_name = "FILE", env = "IMGMV_AUTHFILE")]
    pub authfile: Option<PathBuf>,
    /// Also send the registry's credentials to a token service on another host, HOST (repeatable)
    #[arg(long = "token-host", value_name = "HOST", env = "IMGMV_TOKEN_HOST", value_delimiter = ',')]
    pub token_hosts: Vec<String>,
    /// Maximum number of retries of a failed request
    #[arg(long, value_name = "N", default_value_t = 5, env = "IMGMV_RETRY")]
    pub retry: u32,
    /// Close a connection that transfers no byte, or less than 1 KiB of a body, in SECONDS. The head of a response must
    /// also be complete SECONDS after its first byte
    #[arg(long, value_name = "SECONDS", default_value_t = 30, env = "IMGMV_TIMEOUT",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
    /// Pull from the registry at HOST first (repeatable), then from the mirrors that containerd, docker and podman on
    /// this host are configured with, and last from the registry itself. With PATH, repositories are below that path
    #[arg(long = "mirror", value_name = "HOST[/PATH]", value_delimiter = ',', env = "IMGMV_MIRROR")]
    pub mirrors: Vec<String>,
    /// Maximum bytes per second over the network, of all connections in both directions together, for example 10M (K, M
    /// and G are powers of 1024)
    #[arg(long, value_name = "RATE", env = "IMGMV_LIMIT_RATE")]
    pub limit_rate: Option<Rate>,
}

/// Options for pushing blobs to a registry.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Destination registry")]
pub struct PushOptions {
    /// Send blobs above SIZE in chunks of SIZE, for a proxy that refuses larger requests, for example 64M (K, M and G
    /// are powers of 1024). By default imgmv detects such a limit and remembers it for a week
    #[arg(long, value_name = "SIZE", env = "IMGMV_CHUNK_SIZE")]
    pub chunk_size: Option<Size>,
}

/// A number of bytes; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        parse_bytes(text)?.map(Size).ok_or_else(|| "expected a number of bytes, for example 500K or 64M".into())
    }
}

/// A number of bytes per second; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(pub u64);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        parse_bytes(text)?.map(Rate).ok_or_else(|| "expected bytes per second, for example 500K or 10M".into())
    }
}

/// Parses a number with a unit. Returns None if it is not a number, is 0, or is too large.
fn parse_bytes(text: &str) -> Result<Option<u64>, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text[number.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        other => return Err(format!("{other:?} is not a unit; expected K, M or G")),
    };
    Ok(number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).filter(|bytes| *bytes > 0))
}

/// Options for the form of layers and manifests at the destination.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Layers")]
pub struct LayerOptions {
    /// Compression of layers at the destination. By default layers are not changed, but a registry gets uncompressed
    /// layers as gzip, unless referrers or cosign's tags belong to the image: they would refer to another digest then.
    /// Artifacts are never recompressed
    #[arg(long, value_name = "COMPRESSION", env = "IMGMV_COMPRESS")]
    pub compress: Option<CompressionName>,
    /// Compression level: gzip 1 to 12, zstd 1 to 19. It applies to layers, or without --compress to a .tar.gz or
    /// .tar.zst destination
    #[arg(long, value_name = "N", env = "IMGMV_LEVEL", value_parser = clap::value_parser!(i32).range(1..=19))]
    pub level: Option<i32>,
    /// Convert manifests to this format, for a destination that refuses the other one. Digests change; imgmv reports it
    #[arg(long, value_name = "FORMAT", env = "IMGMV_FORMAT")]
    pub format: Option<FormatName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CompressionName {
    /// As at the source, also uncompressed
    Keep,
    Gzip,
    Zstd,
    /// Uncompressed
    None,
}

impl CompressionName {
    /// The target compression; None for `Keep`.
    pub fn coding(self) -> Option<Coding> {
        match self {
            CompressionName::Keep => None,
            CompressionName::Gzip => Some(Coding::Gzip),
            CompressionName::Zstd => Some(Coding::Zstd),
            CompressionName::None => Some(Coding::Raw),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatName {
    /// Docker image manifest version 2, schema 2
    Docker,
    /// OCI image manifest
    Oci,
}

/// Options of the transfer.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Transfer")]
pub struct Transfer {
    /// Maximum number of blobs, and of ranges of one large blob, in flight; 1 uses one connection to a registry
    /// [default: depends on source and destination]
    #[arg(short, long, value_name = "N", env = "IMGMV_JOBS", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: Option<u16>,
    /// Hash blobs that exist at the destination, instead of comparing only their size
    #[arg(long, env = "IMGMV_VERIFY", value_parser = FalseyValueParser::new())]
    pub verify: bool,
    /// Print the blobs and bytes to transfer, without transferring them
    #[arg(long, env = "IMGMV_DRY_RUN", value_parser = FalseyValueParser::new())]
    pub dry_run: bool,
    /// Exit with status 0, and not 3, if the source has no image
    #[arg(long, env = "IMGMV_ALLOW_EMPTY", value_parser = FalseyValueParser::new())]
    pub allow_empty: bool,
    /// Keep partial files of interrupted copies, in a layout or next to an archive, for DAYS, so that a later copy
    /// resumes; 0 keeps none
    #[arg(long, value_name = "DAYS", default_value_t = PARTIAL_LIFETIME_DAYS, env = "IMGMV_KEEP_PARTIALS")]
    pub keep_partials: u64,
    /// Write the digest of each image to FILE, one per line
    #[arg(long, value_name = "FILE", env = "IMGMV_DIGEST_FILE")]
    pub digest_file: Option<PathBuf>,
}

impl Transfer {
    /// The maximum age of partial files.
    pub fn partial_lifetime(&self) -> Duration {
        Duration::from_secs(self.keep_partials.saturating_mul(DAY_SECONDS))
    }
}

/// Options for an engine as the source.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Engines as a source")]
pub struct SourceEngineOptions {
    /// Directory of the store that SRC reads, also on the mounted disk of another host [default: this host's own, as
    /// /var/lib/containerd or /var/lib/docker]
    #[arg(long, value_name = "DIR", env = "IMGMV_SRC_ROOT")]
    pub src_root: Option<PathBuf>,
    /// Socket of containerd, here or on the remote host; also one that ssh -L forwards [default: CONTAINERD_ADDRESS (not
    /// with --src-root), else containerd's directory, else its usual socket]
    #[arg(long, value_name = "SOCKET", env = "IMGMV_SRC_ADDRESS", conflicts_with = "src_root",
          value_parser = NonEmptyStringValueParser::new())]
    pub src_address: Option<String>,
    /// containerd namespace [default: CONTAINERD_NAMESPACE (not with --src-root), else all namespaces; on a remote host
    /// CONTAINERD_NAMESPACE there, else k8s.io if it exists]
    #[arg(long, value_name = "NS", env = "IMGMV_SRC_NAMESPACE")]
    pub src_namespace: Option<String>,
    /// Engine of the remote host, read by its commands [default: the first of these that answers; containerd by its
    /// socket, if ssh forwards it]
    #[arg(long, value_name = "ENGINE", env = "IMGMV_SRC_ENGINE")]
    pub src_engine: Option<EngineName>,
}

/// Options for remote hosts.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Engines and other hosts")]
pub struct Hosts {
    /// The ssh client: builtin, or a command with options [default: ssh if it is in PATH, else builtin]
    #[arg(long, value_name = "builtin|COMMAND", env = "IMGMV_SSH")]
    pub ssh: Option<String>,
}

/// Options for an engine as the destination.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Engines and other hosts")]
pub struct LoadOptions {
    /// Engine that loads the images by its commands [default: the first of these that answers; containerd by its socket,
    /// if it can be opened]
    #[arg(long, value_name = "ENGINE", env = "IMGMV_ENGINE")]
    pub engine: Option<EngineName>,
    /// Socket of containerd, here or on the remote host [default: CONTAINERD_ADDRESS, else containerd's usual socket; if it
    /// cannot be opened, or layers that shrink go to a remote host, nerdctl or ctr loads the images]
    #[arg(long, value_name = "SOCKET", env = "IMGMV_DST_ADDRESS", value_parser = NonEmptyStringValueParser::new())]
    pub dst_address: Option<String>,
    /// containerd namespace [default: CONTAINERD_NAMESPACE on that host, else k8s.io if it exists]
    #[arg(long, visible_alias = "dst-namespace", value_name = "NS", env = "IMGMV_NAMESPACE")]
    pub namespace: Option<String>,
    /// Command that loads an archive from its standard input, instead of the engine's own, for example "sudo nerdctl
    /// load"
    #[arg(long, value_name = "COMMAND", env = "IMGMV_REMOTE_COMMAND")]
    pub remote_command: Option<String>,
    /// Compression of the archive on the connection to a remote host, which decompresses it for its engine. auto
    /// compresses if layers are uncompressed and the connection is slow
    #[arg(long, value_name = "COMPRESSION", env = "IMGMV_WIRE", default_value = "auto")]
    pub wire: WireName,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum WireName {
    #[default]
    Auto,
    None,
    Gzip,
    Zstd,
}

impl WireName {
    /// The compression; None if it depends on the host, the images and the connection.
    pub fn compression(self) -> Option<WireCompression> {
        match self {
            WireName::Auto => None,
            WireName::None => Some(WireCompression::Plain),
            WireName::Gzip => Some(WireCompression::Gzip),
            WireName::Zstd => Some(WireCompression::Zstd),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineName {
    Nerdctl,
    Docker,
    Ctr,
    Podman,
}

impl From<EngineName> for Engine {
    fn from(name: EngineName) -> Engine {
        match name {
            EngineName::Nerdctl => Engine::Nerdctl,
            EngineName::Docker => Engine::Docker,
            EngineName::Ctr => Engine::Ctr,
            EngineName::Podman => Engine::Podman,
        }
    }
}

/// The value of an option that may be given without a value. An empty environment variable counts as not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct YesOrNo(Option<bool>);

impl YesOrNo {
    pub fn value(self) -> Option<bool> {
        self.0
    }
}

impl FromStr for YesOrNo {
    type Err = String;

    fn from_str(text: &str) -> Result<YesOrNo, String> {
        match text.to_ascii_lowercase().as_str() {
            "" => Ok(YesOrNo(None)),
            "true" | "yes" | "on" | "1" | "t" | "y" => Ok(YesOrNo(Some(true))),
            "false" | "no" | "off" | "0" | "f" | "n" => Ok(YesOrNo(Some(false))),
            _ => Err("expected true or false".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_bytes_a_second() {
        for (written, rate) in
            [("1", Some(1)), ("500K", Some(500 << 10)), ("10M", Some(10 << 20)), ("2GiB", Some(2 << 30))]
        {
            assert_eq!(written.parse::<Rate>().ok().map(|rate| rate.0), rate, "{written}");
        }
        for wrong in ["", "0", "M", "-1", "10T", "99999999999999999999", "18446744073709551615K"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }
}
