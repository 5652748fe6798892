//! Platforms (image-spec, image-index.md "platform") and which of them a machine can run.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    #[serde(default, rename = "os.features", skip_serializing_if = "Option::is_none")]
    pub os_features: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// What this machine runs: linux (whatever the system, since images are for linux) and its architecture.
    pub fn host() -> Platform {
        Platform::new("linux", std::env::consts::ARCH, None)
    }

    /// A platform with its names brought to the registered spelling (`x86_64` is `amd64`, `aarch64` is `arm64`).
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        let (architecture, implied) = match architecture.to_ascii_lowercase().as_str() {
            "x86_64" | "x86-64" | "amd64" => ("amd64".to_owned(), None),
            "aarch64" | "arm64" => ("arm64".to_owned(), None),
            "armhf" => ("arm".to_owned(), Some("v7")),
            "armel" => ("arm".to_owned(), Some("v6")),
            "i386" | "i486" | "i586" | "i686" | "x86" | "386" => ("386".to_owned(), None),
            "powerpc64le" => ("ppc64le".to_owned(), None),
            "loongarch64" => ("loong64".to_owned(), None),
            other => (other.to_owned(), None),
        };
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let variant = variant.filter(|v| !v.is_empty()).or(implied);
        let variant =
            variant.map(|v| if v.starts_with(|c: char| c.is_ascii_digit()) { format!("v{v}") } else { v.to_owned() });
        Platform { architecture, os, os_version: None, os_features: None, variant }
    }

    /// How well an image for `offered` runs where `self` is asked for: `None` not at all, otherwise lower is better.
    /// The rules are containerd's: a processor also runs the older variants of its family, and 64-bit arm runs 32-bit.
    pub fn rank(&self, offered: &Platform) -> Option<usize> {
        let offered = Platform {
            os_version: offered.os_version.clone(),
            ..Platform::new(&offered.os, &offered.architecture, offered.variant.as_deref())
        };
        if self.os != offered.os {
            return None;
        }
        if let Some(version) = &self.os_version
            && offered.os_version.as_ref().is_some_and(|offered| offered != version)
        {
            return None;
        }
        let key = (offered.architecture.as_str(), offered.level());
        self.runs().iter().position(|(architecture, level)| *architecture == key.0 && *level == key.1)
    }

    /// The variant as a number, with the defaults that the architecture gives it (`arm64` is v8, `arm` v7, `amd64` v1).
    fn level(&self) -> String {
        let default = match self.architecture.as_str() {
            "arm64" => "v8",
            "arm" => "v7",
            "amd64" => "v1",
            _ => "",
        };
        self.variant.clone().unwrap_or_else(|| default.to_owned())
    }

    /// What `self` runs, best first.
    fn runs(&self) -> Vec<(&str, String)> {
        let architecture = self.architecture.as_str();
        let level = self.level();
        // `v07` is no number: it is what it is.
        let number = level.trim_start_matches('v').parse::<u32>().ok().filter(|number| format!("v{number}") == level);
        let down = |name: &'static str, from: u32, to: u32| (to..=from).rev().map(move |n| (name, format!("v{n}")));
        match (architecture, number) {
            ("arm", Some(n @ 5..=8)) => down("arm", n, 5).collect(),
            ("amd64", Some(n @ 1..=9)) => down("amd64", n, 1).collect(),
            ("arm64", Some(n)) if n <= 9 => {
                let own = down("arm64", n, 8.min(n));
                own.chain(down("arm", 8, 5)).collect()
            }
            _ => vec![(architecture, level)],
        }
    }

    /// The best of `offered` for `self`, by index.
    pub fn best<'a>(&self, offered: impl Iterator<Item = Option<&'a Platform>>) -> Option<usize> {
        let ranked = offered.enumerate().filter_map(|(at, platform)| Some((self.rank(platform?)?, at)));
        ranked.min().map(|(_, at)| at)
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// `os/arch[/variant]`, or an architecture alone (then linux).
    fn from_str(text: &str) -> Result<Platform> {
        let word = |part: &&str| {
            !part.is_empty()
                && part.len() <= 64
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(word) {
            return Err(Error::usage(format!(
                "{text:?} is not a platform: expected OS/ARCH[/VARIANT], as linux/arm64"
            )));
        }
        match parts[..] {
            [architecture] => Ok(Platform::new("linux", architecture, None)),
            [os, architecture] => Ok(Platform::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Platform::new(os, architecture, Some(variant))),
            _ => Err(Error::usage(format!("{text:?} is not a platform: expected OS/ARCH[/VARIANT], as linux/arm64"))),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn a_machine_runs_the_older_variants_of_its_family() {
        for (wanted, offered, runs) in [
            ("linux/amd64", "linux/amd64", true),
            ("linux/x86_64", "linux/amd64", true),
            ("linux/amd64", "linux/arm64", false),
            ("linux/amd64", "windows/amd64", false),
            ("linux/amd64", "linux/amd64/v2", false),
            ("linux/amd64/v3", "linux/amd64", true),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm64/v8", "linux/arm64", true),
            ("linux/arm64", "linux/arm/v7", true),
            ("linux/arm/v7", "linux/arm/v6", true),
            ("linux/arm/v6", "linux/arm/v7", false),
            ("linux/armhf", "linux/arm/v7", true),
            ("linux/s390x", "linux/s390x", true),
            ("linux/arm/07", "linux/arm/07", true),
        ] {
            assert_eq!(platform(wanted).rank(&platform(offered)).is_some(), runs, "{wanted} {offered}");
        }
    }

    #[test]
    fn the_closest_variant_is_chosen() {
        let offered = [platform("linux/arm/v6"), platform("linux/arm/v7"), platform("linux/arm64")];
        assert_eq!(platform("linux/arm/v7").best(offered.iter().map(Some)), Some(1));
        assert_eq!(platform("linux/arm64").best(offered.iter().map(Some)), Some(2));
    }
}
