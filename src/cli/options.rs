//! Groups of options that several verbs share, in the words of the help.

use crate::image::Coding;
use crate::transport::engine::{Engine, LineCompression};
use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// One side's way into its registry.
#[derive(Debug, Clone, Default)]
pub struct Side {
    /// The option that gives the user.
    pub flag: &'static str,
    pub creds: Option<String>,
    /// From the environment.
    pub password: Option<String>,
    pub password_stdin: bool,
    pub password_file: Option<PathBuf>,
    /// The user's word, if there is one.
    pub insecure: Option<bool>,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// The same options for both sides of a copy, told apart by their prefix.
macro_rules! side {
    ($name:ident, $prefix:literal, $env:literal, $heading:literal) => {
        #[derive(Debug, Clone, Default, Args)]
        #[command(next_help_heading = $heading)]
        pub struct $name {
            #[arg(
                id = concat!($prefix, "-creds"), long, value_name = "USER[:PASSWORD]",
                env = concat!($env, "_CREDS"), hide_env_values = true,
                help = concat!(
                    "User at the registry, and the password unless it comes from ", $env, "_PASSWORD, --", $prefix,
                    "-password-stdin or --", $prefix, "-password-file; without this, docker's and containers' \
                     credentials files are asked"
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
                help = "Allow plain HTTP and certificates that do not verify (loopback may use plain HTTP anyway). \
                        Without this, for the registries that podman's registries.conf, docker's daemon.json and \
                        containerd's hosts.toml call insecure; false: for none"
            )]
            insecure: Option<YesOrNo>,
            #[arg(
                id = concat!($prefix, "-ca"), long, value_name = "FILE", env = concat!($env, "_CA"),
                help = "Trust the certificate authorities in FILE (PEM) besides the system's"
            )]
            ca: Option<PathBuf>,
            #[arg(
                id = concat!($prefix, "-cert"), long, value_name = "FILE", env = concat!($env, "_CERT"),
                requires = concat!($prefix, "-key"), help = "Show the registry the client certificate in FILE (PEM)"
            )]
            cert: Option<PathBuf>,
            #[arg(
                id = concat!($prefix, "-key"), long, value_name = "FILE", env = concat!($env, "_KEY"),
                requires = concat!($prefix, "-cert"), help = "The private key of that certificate (PEM)"
            )]
            key: Option<PathBuf>,
        }

        impl $name {
            pub fn side(&self) -> Side {
                Side {
                    flag: concat!("--", $prefix, "-creds"),
                    creds: self.creds.clone(),
                    password: std::env::var(concat!($env, "_PASSWORD")).ok().filter(|password| !password.is_empty()),
                    password_stdin: self.password_stdin,
                    password_file: self.password_file.clone(),
                    insecure: self.insecure.and_then(YesOrNo::answer),
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

/// Credentials, and how patiently and how fast bytes move.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Network")]
pub struct Network {
    /// Credentials file to use in place of docker's config.json and containers' auth.json
    #[arg(long, value_name = "FILE", env = "IMGMV_AUTHFILE")]
    pub authfile: Option<PathBuf>,
    /// Let the token service at HOST, which is not the registry's own, see the registry's credentials (repeatable)
    #[arg(long = "token-host", value_name = "HOST", env = "IMGMV_TOKEN_HOST", value_delimiter = ',')]
    pub token_hosts: Vec<String>,
    /// How often a request that failed is tried again
    #[arg(long, value_name = "N", default_value_t = 5, env = "IMGMV_RETRY")]
    pub retry: u32,
    /// Give up a connection on which no byte has moved for so long, or of whose body fewer than 1 KiB came in that time;
    /// the head of an answer has to be complete within this, from its first byte on
    #[arg(long, value_name = "SECONDS", default_value_t = 30, env = "IMGMV_TIMEOUT",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
    /// Ask the registry at HOST first for what is pulled (repeatable), before the mirrors that containerd, docker and
    /// podman are told of on this host; the registry itself is the last. With a PATH the repository lies below it
    #[arg(long = "mirror", value_name = "HOST[/PATH]", value_delimiter = ',', env = "IMGMV_MIRROR")]
    pub mirrors: Vec<String>,
    /// Move no more than RATE bytes a second over the network, both ways and all connections together (K, M and G are
    /// powers of 1024: 10M)
    #[arg(long, value_name = "RATE", env = "IMGMV_LIMIT_RATE")]
    pub limit_rate: Option<Rate>,
}

/// How blobs are sent to a registry.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Destination registry")]
pub struct Pushing {
    /// Send a blob of more than SIZE bytes in chunks of SIZE, for a proxy that refuses larger requests (K, M and G are
    /// powers of 1024: 64M); without this, a limit is found, and remembered for a week
    #[arg(long, value_name = "SIZE", env = "IMGMV_CHUNK_SIZE")]
    pub chunk_size: Option<Size>,
}

/// Bytes; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        bytes(text)?.map(Size).ok_or_else(|| "expected bytes, as 500K or 64M".into())
    }
}

/// Bytes a second; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(pub u64);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        bytes(text)?.map(Rate).ok_or_else(|| "expected bytes a second, as 500K or 10M".into())
    }
}

/// A number with a unit; none where it is not one, is 0, or is too large.
fn bytes(text: &str) -> Result<Option<u64>, String> {
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

/// How layers are packed at the destination.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Layers")]
pub struct Packing {
    /// How layers are to be packed; by default raw layers become gzip on their way to a registry, all others are kept.
    /// Artifacts are never recompressed
    #[arg(long, value_name = "HOW", env = "IMGMV_COMPRESS")]
    pub compress: Option<How>,
    /// Level of compression: gzip 1 to 12, zstd 1 to 19; of the layers, or without --compress of a .tar.gz or .tar.zst
    /// that is written
    #[arg(long, value_name = "N", env = "IMGMV_LEVEL", value_parser = clap::value_parser!(i32).range(1..=19))]
    pub level: Option<i32>,
    /// Write manifests in docker's or OCI's form, for a destination that refuses the other; digests change, which is said
    #[arg(long, value_name = "FORM", env = "IMGMV_FORMAT")]
    pub format: Option<Form>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum How {
    /// As the source has them, raw ones too
    Keep,
    Gzip,
    Zstd,
    /// Unpacked
    None,
}

impl How {
    /// None: keep.
    pub fn coding(self) -> Option<Coding> {
        match self {
            How::Keep => None,
            How::Gzip => Some(Coding::Gzip),
            How::Zstd => Some(Coding::Zstd),
            How::None => Some(Coding::Raw),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Docker's image manifest version 2, schema 2
    Docker,
    /// The Open Container Initiative's
    Oci,
}

/// How the copy itself runs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Transfer")]
pub struct Transfer {
    /// So many blobs at once, at most, and as many parts of one large blob (1: one connection to a registry); by default
    /// what suits source and destination
    #[arg(short, long, value_name = "N", env = "IMGMV_JOBS", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: Option<u16>,
    /// Hash blobs that are at the destination already instead of trusting their size
    #[arg(long, env = "IMGMV_VERIFY", value_parser = FalseyValueParser::new())]
    pub verify: bool,
    /// Say what would be moved, and how many bytes, and move nothing
    #[arg(long, env = "IMGMV_DRY_RUN", value_parser = FalseyValueParser::new())]
    pub dry_run: bool,
    /// End well where the source holds no image, and not with status 3
    #[arg(long, env = "IMGMV_ALLOW_EMPTY", value_parser = FalseyValueParser::new())]
    pub allow_empty: bool,
    /// How long what a cut copy left in a layout or beside an archive is kept for the next one; 0 keeps nothing
    #[arg(long, value_name = "DAYS", default_value_t = 7, env = "IMGMV_KEEP_PARTIALS")]
    pub keep_partials: u64,
    /// Write the digest of each image to FILE, one a line
    #[arg(long, value_name = "FILE", env = "IMGMV_DIGEST_FILE")]
    pub digest_file: Option<PathBuf>,
}

impl Transfer {
    /// Of what a cut copy left.
    pub fn life(&self) -> Duration {
        Duration::from_secs(self.keep_partials.saturating_mul(24 * 60 * 60))
    }
}

/// Where containerd's directory lies, and which engine and namespace is read.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Engines as a source")]
pub struct SourceEngine {
    /// containerd's directory, perhaps on the mounted disk of another machine [default: /var/lib/containerd]
    #[arg(long, value_name = "DIR", env = "IMGMV_SRC_ROOT")]
    pub src_root: Option<PathBuf>,
    /// containerd's namespace [default: CONTAINERD_NAMESPACE where --src-root is not given, else all of them; on another
    /// host CONTAINERD_NAMESPACE there, else k8s.io where it exists]
    #[arg(long, value_name = "NS", env = "IMGMV_SRC_NAMESPACE")]
    pub src_namespace: Option<String>,
    /// The engine of another host that is read; by default the first of these that answers there
    #[arg(long, value_name = "ENGINE", env = "IMGMV_SRC_ENGINE")]
    pub src_engine: Option<EngineName>,
}

/// The way to other hosts.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Engines and other hosts")]
pub struct Hosts {
    /// The ssh client: builtin, or a command with its options; by default ssh when it is on the PATH, else builtin
    #[arg(long, value_name = "builtin|COMMAND", env = "IMGMV_SSH")]
    pub ssh: Option<String>,
}

/// The engine that loads images, here or on another host.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Engines and other hosts")]
pub struct Loading {
    /// The engine that loads; by default the first of these that answers there
    #[arg(long, value_name = "ENGINE", env = "IMGMV_ENGINE")]
    pub engine: Option<EngineName>,
    /// containerd's namespace for nerdctl and ctr [default: CONTAINERD_NAMESPACE there, else k8s.io where it exists]
    #[arg(long, visible_alias = "dst-namespace", value_name = "NS", env = "IMGMV_NAMESPACE")]
    pub namespace: Option<String>,
    /// The command that loads an archive from its standard input, in place of the engine's own ("sudo nerdctl load")
    #[arg(long, value_name = "COMMAND", env = "IMGMV_REMOTE_COMMAND")]
    pub remote_command: Option<String>,
    /// How the archive is packed on its way to another host, which unpacks it before its engine sees it: auto packs
    /// layers that are not packed yet, unless the line is as fast
    #[arg(long, value_name = "HOW", env = "IMGMV_WIRE", default_value = "auto")]
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
    /// None: by the host, the images and the line.
    pub fn wire(self) -> Option<LineCompression> {
        match self {
            WireName::Auto => None,
            WireName::None => Some(LineCompression::Plain),
            WireName::Gzip => Some(LineCompression::Gzip),
            WireName::Zstd => Some(LineCompression::Zstd),
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

/// The value of an option that may stand without one; an empty one, as variables have it, says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct YesOrNo(Option<bool>);

impl YesOrNo {
    pub fn answer(self) -> Option<bool> {
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
