//! Options that say how much of an image is meant: platforms, missing parts, nondistributable layers.

use crate::copy::{Foreign, Platforms, Sparse};
use crate::image::Platform;
use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};

/// Which of an image's platforms.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Images")]
pub struct Choice {
    /// Only this platform's image (repeatable); by default everything the destination can hold
    #[arg(
        long = "platform",
        value_name = "OS/ARCH[/VARIANT][:OSVERSION]",
        value_delimiter = ',',
        env = "IMGMV_PLATFORM"
    )]
    pub platforms: Vec<Platform>,
    /// Of --platform, only builds whose os.version begins with VERSION (Windows: 10.0.20348); by default the newest one
    #[arg(long, value_name = "VERSION", env = "IMGMV_OS_VERSION", requires = "platforms", value_parser = os_version)]
    pub os_version: Option<String>,
    /// Every platform, and an error where the source is without one of them or the destination cannot hold them; wins
    /// over --platform
    #[arg(long, env = "IMGMV_ALL_PLATFORMS", value_parser = FalseyValueParser::new())]
    pub all_platforms: bool,
}

impl Choice {
    /// Which platforms are asked for.
    pub fn platforms(&self) -> Platforms {
        let versioned = |platform: &Platform| {
            let os_version = platform.os_version.clone().or_else(|| self.os_version.clone());
            Platform { os_version, ..platform.clone() }
        };
        match (self.all_platforms, &self.platforms[..]) {
            (true, _) => Platforms::All,
            (false, []) => Platforms::Default,
            (false, wanted) => Platforms::Only(wanted.iter().map(versioned).collect()),
        }
    }
}

fn os_version(text: &str) -> Result<String, String> {
    match format!("windows/amd64:{text}").parse::<Platform>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("expected the beginning of an os.version, as 10.0.20348".to_owned()),
    }
}

/// Images of which not everything is copied.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Images")]
pub struct Parts {
    /// How to treat an index of which parts are missing at the source or not wanted
    #[arg(long, value_name = "HOW", env = "IMGMV_SPARSE", default_value = "auto")]
    pub sparse: SparseName,
    /// How to treat layers of a nondistributable type (old Windows images have them); every other layer has to exist at
    /// the source
    #[arg(long, value_name = "HOW", env = "IMGMV_FOREIGN", default_value = "carry")]
    pub foreign: ForeignName,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SparseName {
    /// Layouts, containerd and docker's containerd store keep the index; archives and registries get a smaller one.
    /// With --platform a smaller one everywhere; with --all-platforms missing parts are an error
    Auto,
    /// The index and its digest stay, and list what is missing
    Keep,
    /// An index of what is copied, or the image itself where that is one; the digest is a new one
    Narrow,
    /// It is an error
    Fail,
}

impl From<SparseName> for Sparse {
    fn from(name: SparseName) -> Sparse {
        match name {
            SparseName::Auto => Sparse::Auto,
            SparseName::Keep => Sparse::Keep,
            SparseName::Narrow => Sparse::Narrow,
            SparseName::Fail => Sparse::Fail,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ForeignName {
    /// Copy those that the source has
    Carry,
    /// Copy none of them
    Leave,
    /// Copy those that the source has, and fetch the others over https from where the image says they are, without
    /// credentials
    Fetch,
}

impl From<ForeignName> for Foreign {
    fn from(name: ForeignName) -> Foreign {
        match name {
            ForeignName::Carry | ForeignName::Fetch => Foreign::Carry,
            ForeignName::Leave => Foreign::Leave,
        }
    }
}
