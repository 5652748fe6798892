//! What SRC and DST may be, for the help.

/// Shown below the help of every verb that takes a SRC or DST.
pub const PLACES: &str = "\
What SRC and DST may be:
  docker://[HOST[:PORT]/]REPO[:TAG|@DIGEST]
      a registry; a DST that ends in / is a prefix under which each image
      keeps its own path
  docker-archive:FILE[:REF]
      a docker-save tar; without REF, every image in it
  oci-archive:FILE[:REF], oci:DIR[:REF|:@DIGEST]
      an OCI layout, as tar or directory; without REF, every image in it
  containerd:REF, docker-daemon:REF
      this host's engines and containerd's directory
  ssh://[USER@]HOST[:PORT][/REF], [USER@]HOST:[REF]
      the engine of another host
  -
      an archive on standard input or output
  /path, ./path, ../path, ~/path, or what ends in .tar, .tar.gz, .tgz, .tar.zst
      as SRC, what it is is found by looking at it (archive or layout); as
      DST, an archive that loads everywhere, compressed as its ending says: only
      a plain .tar can be resumed, served, re-tagged and read in part
  anything else that is a reference
      a registry

What a word means never depends on what happens to lie on the disk. HOST: with
nothing behind the colon, or USER@HOST:…, is a host; NAME:TAG is a reference. A
bare name is a registry's: this host's engines are docker-daemon:app:2 and
containerd:app:2.";
