//! Documents of every format, and the entries that they mean.

use crate::shown::{lines, plain};

const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn means(document: &str, expected: &[&str]) {
    let set = plain(document).unwrap_or_else(|error| panic!("{error}\n{document}"));
    assert_eq!(lines(&set), expected, "{document}");
}

#[test]
fn a_plain_list_has_an_image_a_line() {
    means(
        "\u{feff}# images of the cluster\r\n\r\ndocker.io/library/alpine:3.20\r\n  quay.io/org/app:v1   # pinned\r\n\
         quay.io/org/tool:/^v1/\r\n[::1]:5000/app\nregistry.lan:5000/app\n",
        &[
            "plain list",
            "line 3: docker.io/library/alpine:3.20",
            "line 4: quay.io/org/app:v1",
            "line 5: quay.io/org/tool {/^v1/}",
            "line 6: [::1]:5000/app",
            "line 7: registry.lan:5000/app",
        ],
    );
}

#[test]
fn a_list_of_pairs_may_have_lines_without_a_destination() {
    let digest = format!("quay.io/org/app@{SHA}=registry.lan/app:v1");
    means(
        &format!(
            "alpine registry.lan/alpine\n{digest}\nbusybox\nquay.io/x:/^1/=registry.lan/\n--platform=linux/arm64 nginx\n"
        ),
        &[
            "list of pairs",
            "line 1: alpine > registry.lan/alpine",
            &format!("line 2: quay.io/org/app@{SHA} > registry.lan/app:v1"),
            "line 3: busybox",
            "line 4: quay.io/x {/^1/} > registry.lan/",
            "line 5: nginx linux/arm64",
        ],
    );
}

#[test]
fn an_imgmv_file_has_defaults_and_filters() {
    means(
        r"
defaults: {to: registry.lan/, platforms: [linux/amd64, linux/arm64], referrers: true}
images:
  - alpine:3.20
  - quay.io/org/app:/^1\.\d+$/
  - from: quay.io/org/app
    to: [registry.lan/app, 'oci:./mirror']
    platforms: linux/amd64
    referrers: no
    tags: {regex: '^v', not: '-rc', semver: '>=1.2', prerelease: true, latest: 5, with: [edge, 1.10]}
  - {from: a/b, tags: {glob: [v*, w*], not: '*-rc*'}}
  - {from: a/c, tags: [1.10, v2]}
  - {from: a/d, tags: 1.20}
  - {from: a/e, tags: {with: x}}
  - {from: a/f, tags: {}}
",
        &[
            "imgmv file",
            "images[0]: alpine:3.20 > registry.lan/ linux/amd64 linux/arm64 referrers",
            r"images[1]: quay.io/org/app {/^1\.\d+$/} > registry.lan/ linux/amd64 linux/arm64 referrers",
            "images[2]: quay.io/org/app {/^v/ !/-rc/ (>=1.2) prerelease latest 5 +edge +1.10} > registry.lan/app oci:./mirror \
             linux/amd64 no-referrers",
            "images[3]: a/b {/v*/ /w*/ !/*-rc*/} > registry.lan/ linux/amd64 linux/arm64 referrers",
            "images[4]: a/c [1.10 v2] > registry.lan/ linux/amd64 linux/arm64 referrers",
            "images[5]: a/d [1.20] > registry.lan/ linux/amd64 linux/arm64 referrers",
            "images[6]: a/e [x] > registry.lan/ linux/amd64 linux/arm64 referrers",
            "images[7]: a/f {} > registry.lan/ linux/amd64 linux/arm64 referrers",
        ],
    );
}

#[test]
fn keys_that_are_unknown_are_named_with_their_place() {
    means(
        "images:\n- {from: a, tags: {latest: 1}, retries: 3}\ndefaults: {color: red}\nextra: 1\n",
        &[
            "imgmv file",
            "images[0]: a {latest 1}",
            "not honoured: defaults.color",
            "not honoured: extra",
            "not honoured: images[0].retries",
        ],
    );
}

#[test]
fn an_image_syncer_map_pairs_tags_off() {
    let expected = [
        "image-syncer file",
        "quay.io/org/all: quay.io/org/all {} > registry.lan/all",
        "quay.io/org/one:v1: quay.io/org/one:v1 > registry.lan/one:v1 registry.cn/one:x",
        "quay.io/org/two:v1,v2: quay.io/org/two [v1 v2] > registry.lan/two",
        "quay.io/org/three:v1,v2: quay.io/org/three [v1 v2] > registry.lan/three registry.cn/three",
        "quay.io/org/three:v1,v2: quay.io/org/three [v1=a v2=b] > registry.de/three",
        "quay.io/org/re:/^v[12]$/: quay.io/org/re {/^v[12]$/} > registry.lan/re",
        &format!("quay.io/org/pin@{SHA}: quay.io/org/pin@{SHA} > registry.lan/pin:v1"),
        "registry.lan:5000/default: registry.lan:5000/default {}",
    ];
    means(
        &format!(
            "quay.io/org/all: registry.lan/all\n\
             quay.io/org/one:v1: [registry.lan/one, 'registry.cn/one:x']\n\
             quay.io/org/two:v1,v2: registry.lan/two\n\
             quay.io/org/three:v1,v2:\n- registry.lan/three\n- registry.cn/three\n- registry.de/three:a,b\n\
             quay.io/org/re:/^v[12]$/: registry.lan/re\n\
             quay.io/org/pin@{SHA}: registry.lan/pin:v1\n\
             registry.lan:5000/default: ''\n"
        ),
        &expected,
    );
    means(
        &format!(
            "{{\n\t\"quay.io\\/org/all\": \"registry.lan/all\",\n\t\"quay.io/org/one:v1\": [\"registry.lan/one\", \"registry.cn/one:x\"],\n\
             \t\"quay.io/org/two:v1,v2\": \"registry.lan/two\",\n\
             \t\"quay.io/org/three:v1,v2\": [\"registry.lan/three\",\"registry.cn/three\",\"registry.de/three:a,b\"],\n\
             \t\"quay.io/org/re:/^v[12]$/\":\"registry.lan/re\",\n\t\"quay.io/org/pin@{SHA}\" : \"registry.lan/pin:v1\",\n\
             \t\"registry.lan:5000/default\": null\n}}\n"
        ),
        &expected,
    );
}

#[test]
fn the_old_configuration_of_image_syncer_has_credentials() {
    means(
        r#"{"auth": {"registry.lan:5000": {"username": "me", "password": "s3cret", "insecure": true},
            "quay.io/org": {"username": "you", "password": "s3cret"}, "plain.lan": {"insecure": true}},
            "images": {"quay.io/org/app:v1": "registry.lan:5000/app"}, "defaultDestRegistry": "x"}"#,
        &[
            "image-syncer file",
            "quay.io/org/app:v1: quay.io/org/app:v1 > registry.lan:5000/app:v1",
            "host registry.lan:5000 as me insecure",
            "host quay.io/org as you",
            "host plain.lan insecure",
            "not honoured: defaultDestRegistry",
        ],
    );
}

#[test]
fn a_skopeo_file_has_no_destinations() {
    means(
        &format!(
            "registry.lan:5000:
  images:
    busybox: []
    redis: ['1.0', 2.10, {SHA}]
    nothing:
  images-by-tag-regex:
    nginx: ^1\\.13\\.[12]-alpine-perl$
  images-by-semver:
    alpine: '>= 3.12.0'
  credentials: {{username: john, password: s3cret}}
  tls-verify: false
  cert-dir: /srv/certs
quay.io:
  tls-verify: true
  images: {{coreos/etcd: [latest]}}
"
        ),
        &[
            "skopeo sync file",
            "registry.lan:5000/busybox: registry.lan:5000/busybox {}",
            &format!("registry.lan:5000/redis: registry.lan:5000/redis [1.0 2.10 {SHA}]"),
            "registry.lan:5000/nothing: registry.lan:5000/nothing {}",
            r"registry.lan:5000/nginx: registry.lan:5000/nginx {/^1\.13\.[12]-alpine-perl$/}",
            "registry.lan:5000/alpine: registry.lan:5000/alpine {(>= 3.12.0)}",
            "quay.io/coreos/etcd: quay.io/coreos/etcd [latest]",
            "host registry.lan:5000 as john insecure",
            "not honoured: \"registry.lan:5000\".cert-dir",
        ],
    );
}

#[test]
fn a_regsync_file_keeps_its_filters_and_names_the_rest() {
    means(
        "version: 1
creds:
  - {registry: registry.lan:5000, tls: disabled, repoAuth: true}
  - {registry: docker.io, user: me, pass: s3cret}
x-common: &common
  interval: 60m
  referrers: true
defaults:
  ratelimit: {min: 100, retry: 15m}
  parallel: 2
  digestTags: true
sync:
  - source: busybox:latest
    target: registry.lan:5000/busybox:latest
    type: image
    platform: linux/amd64
  - source: alpine
    target: registry.lan:5000/alpine
    type: repository
    tags:
      allow: ['3', 3.\\d+]
      deny: [3.0]
      semverRange: ['>=3.1']
    <<: *common
    hooks: {pre: {type: exec, params: [/bin/rm]}}
  - source: ocidir://mirror
    target: registry.lan:5000/mirror
    type: repository
    referrers: false
    digestTags: false
    tagSets:
    - allow: [a]
    - semverRange: ['1.x', '2.x']
  - {source: a/b, target: c/d, type: repository, fastCheck: true}
",
        &[
            "regsync file",
            "sync[0]: busybox:latest > registry.lan:5000/busybox:latest linux/amd64 referrers",
            r"sync[1]: alpine {/3/ /3.\d+/ !/3.0/ (>=3.1)} > registry.lan:5000/alpine referrers",
            "sync[2].tagSets[0]: oci:mirror {/a/} > registry.lan:5000/mirror no-referrers",
            "sync[2].tagSets[1]: oci:mirror {(1.x) (2.x)} > registry.lan:5000/mirror no-referrers",
            "sync[3]: a/b {} > c/d referrers",
            "host registry.lan:5000 insecure",
            "host docker.io as me",
            "not honoured: defaults.ratelimit",
            "not honoured: defaults.parallel",
            "not honoured: creds[0].repoAuth",
            "not honoured: x-common",
            "not honoured: sync[1].hooks",
            "not honoured: x-common.interval",
            "not honoured: sync[3].fastCheck",
        ],
    );
}

#[test]
fn regsync_matches_complete_tags() {
    use imgmv::internals::sets::Tags;
    let set = plain("sync:\n- {source: a/b, target: c/d, type: repository, tags: {allow: ['1|2']}}").unwrap();
    let Tags::Filtered(filter) = &set.entries[0].tags else { panic!("{:?}", set.entries[0]) };
    assert_eq!(["1", "2", "12", "1-rc"].map(|tag| filter.include[0].matches(tag)), [true, true, false, false]);
}

#[test]
fn the_images_of_dregsy_hauler_and_ocync_are_read() {
    means(
        &format!(
            "relay: skopeo
tasks:
- name: one
  interval: 60
  source: {{registry: quay.io, auth: abc}}
  target: {{registry: registry.lan, auth: abc}}
  mappings:
  - {{from: /org/app, to: app, tags: ['0.1.0', 1.10, 'semver: >=1', 'v2@{SHA}'], platform: all}}
  - {{from: org/all}}
  - {{from: org/none, tags: ['regex: ^1']}}
  - {{from: 'regex:org/.*'}}
"
        ),
        &[
            "dregsy file",
            &format!("tasks[0].mappings[0]: quay.io/org/app [0.1.0 1.10 {SHA}=v2]"),
            "tasks[0].mappings[1]: quay.io/org/all {}",
            "not honoured: relay",
            "not honoured: tasks[0].interval",
            "not honoured: tasks[0].source.auth",
            "not honoured: tasks[0].target",
            "not honoured: tasks[0].mappings[0].to",
            "not honoured: tasks[0].mappings[0].tags[2]",
            "not honoured: tasks[0].mappings[2].tags[0]",
            "not honoured: tasks[0].mappings[3].from",
        ],
    );
    means(
        "apiVersion: content.hauler.cattle.io/v1
kind: Images
metadata: {name: a, annotations: {hauler.dev/registry: x}}
spec:
  images:
  - {name: 'alpine:3', platform: linux/arm64, exclude-extras: true}
  - name: quay.io/a/b
---
apiVersion: content.hauler.cattle.io/v1
kind: Charts
spec: {charts: [{name: rancher}]}
---
",
        &[
            "hauler file",
            "spec.images[0]: alpine:3 linux/arm64",
            "spec.images[1]: quay.io/a/b",
            "not honoured: metadata.annotations.\"hauler.dev/registry\"",
            "not honoured: spec.images[0].exclude-extras",
            "not honoured: kind: Charts",
        ],
    );
    means(
        "registries:
  src: {url: cgr.dev, token: '${TOKEN}'}
  dst: {url: registry.lan}
defaults:
  source: src
  targets: dst
  platforms: [linux/amd64]
  tags: {glob: '*', semver: '>=1.0', sort: semver, latest: 5, min_tags: 1, include: [latest]}
mappings:
- {from: org/app, to: app}
- {from: org/tool, tags: {include: [a, 'b*']}, artifacts: {enabled: false}}
",
        &[
            "ocync file",
            "mappings[0]: cgr.dev/org/app {/*/ (>=1.0) latest 5 +latest} linux/amd64",
            "mappings[1]: cgr.dev/org/tool [a] linux/amd64 no-referrers",
            "not honoured: defaults.targets",
            "not honoured: mappings[0].to",
            "not honoured: defaults.tags.min_tags",
            "not honoured: mappings[1].tags.include[1]",
        ],
    );
}
