//! Platforms (image-spec, image-index.md "platform") and the selection of the best one for a host.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::{cmp::Reverse, fmt, str::FromStr};

/// The operating system and processor that an image runs on. The names are Go's (`GOOS`, `GOARCH`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// The processor architecture (`amd64`); empty if missing.
    #[serde(default)]
    pub architecture: String,
    /// The operating system (`linux`); empty if missing.
    #[serde(default)]
    pub os: String,
    /// The version of the operating system (`10.0.20348.2966`), used by Windows.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Required features of the operating system; not compared.
    #[serde(default, rename = "os.features", skip_serializing_if = "Option::is_none")]
    pub os_features: Option<Vec<String>>,
    /// The variant of the processor (`v7`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// Returns the platform of this host: always linux, since images are for linux, and its architecture.
    pub fn host() -> Platform {
        Platform::new("linux", std::env::consts::ARCH, None)
    }

    /// Creates a platform with normalized names (`x86_64` is `amd64`, `aarch64` is `arm64`).
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

    /// Returns how well an image for `offered` runs on `self`: lower is better, `None` means not at all.
    ///
    /// As in containerd, a processor runs the older variants of its family, and 64-bit arm runs 32-bit arm. A requested
    /// `os.version` must be a prefix of the image's (`10.0.20348` matches all its builds).
    pub fn rank(&self, offered: &Platform) -> Option<usize> {
        let version = offered.os_version.as_deref();
        let offered = Platform::new(&offered.os, &offered.architecture, offered.variant.as_deref());
        if self.os != offered.os {
            return None;
        }
        if let (Some(wanted), Some(version)) = (self.os_version.as_deref(), version)
            && !has_version_prefix(version, wanted)
        {
            return None;
        }
        let key = (offered.architecture.as_str(), offered.variant_or_default());
        self.compatible().iter().position(|(architecture, level)| *architecture == key.0 && *level == key.1)
    }

    /// Returns the variant, or the default of the architecture (`arm64` is v8, `arm` v7, `amd64` v1).
    fn variant_or_default(&self) -> String {
        let default = match self.architecture.as_str() {
            "arm64" => "v8",
            "arm" => "v7",
            "amd64" => "v1",
            _ => "",
        };
        self.variant.clone().unwrap_or_else(|| default.to_owned())
    }

    /// Returns the architectures and variants that `self` runs, best first.
    fn compatible(&self) -> Vec<(&str, String)> {
        let architecture = self.architecture.as_str();
        let level = self.variant_or_default();
        // `v07` does not count as a number; it only matches itself.
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

    /// Returns the index of the best platform for `self`: among equals the newest `os.version`, then the first.
    pub fn best<'a>(&self, offered: impl Iterator<Item = Option<&'a Platform>>) -> Option<usize> {
        let ranked = offered.enumerate().filter_map(|(at, platform)| {
            let platform = platform?;
            Some((self.rank(platform)?, Reverse(platform.version()), at))
        });
        ranked.min().map(|(.., at)| at)
    }

    /// Returns the numbers of `os.version` for comparison; a platform without one is the oldest.
    fn version(&self) -> Vec<u64> {
        let parts = self.os_version.as_deref().unwrap_or_default().split('.');
        parts.map_while(|part| part.parse().ok()).collect()
    }
}

/// Whether `version` starts with `prefix`, compared by complete numbers between dots.
fn has_version_prefix(version: &str, prefix: &str) -> bool {
    version.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

const FORM: &str = "expected OS/ARCH[/VARIANT][:OSVERSION], for example linux/arm64 or windows/amd64:10.0.20348";

impl FromStr for Platform {
    type Err = Error;

    /// Parses `os/arch[/variant][:os.version]`, or only an architecture (then linux).
    fn from_str(text: &str) -> Result<Platform> {
        let wrong = || Error::usage(format!("{text:?} is not a platform: {FORM}"));
        let word = |part: &&str| {
            !part.is_empty()
                && part.len() <= 64
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let (names, version) = match text.split_once(':') {
            Some((names, version)) => (names, Some(version)),
            None => (text, None),
        };
        let parts: Vec<&str> = names.split('/').collect();
        if !parts.iter().chain(&version).all(word) {
            return Err(wrong());
        }
        let platform = match parts[..] {
            [architecture] => Platform::new("linux", architecture, None),
            [os, architecture] => Platform::new(os, architecture, None),
            [os, architecture, variant] => Platform::new(os, architecture, Some(variant)),
            _ => return Err(wrong()),
        };
        Ok(Platform { os_version: version.map(str::to_owned), ..platform })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if let Some(variant) = self.variant.as_deref().filter(|variant| !variant.is_empty()) {
            write!(f, "/{variant}")?;
        }
        match self.os_version.as_deref().filter(|version| !version.is_empty()) {
            Some(version) => write!(f, ":{version}"),
            None => Ok(()),
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

    #[test]
    fn a_version_is_asked_for_by_its_beginning_and_the_newest_wins() {
        let builds = ["10.0.17763.5122", "10.0.20348.2966", "10.0.20348.405", "10.0.203480.1"];
        let offered: Vec<Platform> = builds.iter().map(|build| platform(&format!("windows/amd64:{build}"))).collect();
        for (wanted, at) in [
            ("windows/amd64", Some(3)),
            ("windows/amd64:10.0.20348", Some(1)),
            ("windows/amd64:10.0.20348.405", Some(2)),
            ("windows/amd64:10.0.17763", Some(0)),
            ("windows/amd64:10.0.2", None),
            ("windows/arm64:10.0.20348", None),
        ] {
            assert_eq!(platform(wanted).best(offered.iter().map(Some)), at, "{wanted}");
        }
        let unversioned = [platform("windows/amd64"), platform("windows/amd64:10.0.20348.1")];
        assert_eq!(platform("windows/amd64:10.0.20348").best(unversioned.iter().map(Some)), Some(1));
        assert_eq!(platform("windows/amd64:10.0.20348").to_string(), "windows/amd64:10.0.20348");
        for wrong in ["windows/amd64:", ":10", "windows/amd64:1:2", "windows/amd64:10/x"] {
            assert!(wrong.parse::<Platform>().is_err(), "{wrong}");
        }
    }
}
