//! Options that select parts of an image: platforms, missing parts, nondistributable layers.

use crate::copy::{Foreign, Platforms, Referrers, Sparse};
use crate::image::{Platform, ReferrerType};
use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};

/// The platforms of an image.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Images")]
pub struct Choice {
    /// Copy only the image for this platform (repeatable); by default every platform that the destination can store
    #[arg(
        long = "platform",
        value_name = "OS/ARCH[/VARIANT][:OSVERSION]",
        value_delimiter = ',',
        env = "IMGMV_PLATFORM"
    )]
    pub platforms: Vec<Platform>,
    /// With --platform, only builds whose os.version begins with VERSION (Windows: 10.0.20348); by default the newest one
    #[arg(long, value_name = "VERSION", env = "IMGMV_OS_VERSION", requires = "platforms", value_parser = os_version)]
    pub os_version: Option<String>,
    /// Copy every platform; fail if one is missing at the source or the destination cannot store them all. Overrides
    /// --platform
    #[arg(long, env = "IMGMV_ALL_PLATFORMS", value_parser = FalseyValueParser::new())]
    pub all_platforms: bool,
}

impl Choice {
    /// The selected platforms.
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
        Err(_) => Err("expected the beginning of an os.version, for example 10.0.20348".to_owned()),
    }
}

/// The options for what belongs to an image.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Images")]
pub struct ReferrerOptions {
    /// Copy only the image, without its signatures, SBOMs and attestations; the source is not asked for them
    #[arg(long, env = "IMGMV_NO_REFERRERS", value_parser = FalseyValueParser::new(), conflicts_with_all = ["referrers", "require_referrers"])]
    pub no_referrers: bool,
    /// Copy only referrers of these types: media types, or signature, sbom, attestation; by default all that belong to
    /// the image, and the tags that cosign makes of its digest
    #[arg(long, value_name = "TYPE", value_delimiter = ',', env = "IMGMV_REFERRERS")]
    pub referrers: Vec<ReferrerType>,
    /// Fail with exit status 3 before anything is copied if the image has no referrer of this type (repeatable)
    #[arg(long, value_name = "TYPE", value_delimiter = ',', env = "IMGMV_REQUIRE_REFERRERS")]
    pub require_referrers: Vec<ReferrerType>,
}

impl ReferrerOptions {
    /// The options of the copy.
    pub fn referrers(&self) -> Referrers {
        Referrers {
            wanted: !self.no_referrers,
            types: self.referrers.clone(),
            required: self.require_referrers.clone(),
        }
    }
}

/// The options for incomplete images.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Images")]
pub struct Parts {
    /// How to copy an index with parts that are missing at the source or not selected
    #[arg(long, value_name = "HOW", env = "IMGMV_SPARSE", default_value = "auto")]
    pub sparse: SparseName,
    /// How to copy layers of a nondistributable type (old Windows images have them); every other layer must exist at the
    /// source
    #[arg(long, value_name = "HOW", env = "IMGMV_FOREIGN", default_value = "carry")]
    pub foreign: ForeignName,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SparseName {
    /// Registries and layouts keep the index and its digest; containerd and docker's containerd store do so without
    /// --platform. With --platform these two, and always archives and registries that refuse missing parts, get an index
    /// of the copied parts, or only the image if there is one. An archive has the index's bytes too, for a later copy.
    /// With --all-platforms missing parts are an error
    Auto,
    /// Keep the index and its digest; it also lists the missing parts
    Keep,
    /// Write an index of the copied parts, or only the image if there is one; the digest changes
    Narrow,
    /// Fail
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
    /// Copy the layers that the source has
    Carry,
    /// Copy none of these layers
    Leave,
    /// Copy the layers that the source has, and fetch the others over https from the URLs in the image, without
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
