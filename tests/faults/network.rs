//! Connections that crawl, proxies, certificates, and the configuration files that name them.
