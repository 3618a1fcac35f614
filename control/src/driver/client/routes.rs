//! The routes of one tunnel: what goes through it, and its own packets outside it.

use std::net::Ipv4Addr;

use super::super::log::Log;
use super::super::netlink::{Added, Netlink, NetlinkError, RouteEntry, Way};
use super::leftovers::Record;
use crate::config::client::ClientConfig;
use crate::config::pppd_options::DefaultRoute;
use crate::config::route::{Route, RouteVia};

/// What the configuration asks for, and what of it stands outside the tunnel's interface: the
/// other routes go with the interface's addresses.
pub(super) struct Routes {
    default: DefaultRoute,
    lines: Vec<Route>,
    /// Not `--nohostroute`.
    may_add_host_route: bool,
    mark: Option<u32>,
    /// The routing table of the tunnel's VRF, for what goes through the tunnel.
    table: Option<u32>,
    outside: Vec<RouteEntry>,
}

impl Routes {
    pub(super) fn new(config: &ClientConfig, table: Option<u32>) -> Self {
        Self {
            default: config.default_route,
            lines: config.routes.clone(),
            may_add_host_route: config.pptp.host_route,
            mark: config.pptp.mark,
            table,
            outside: Vec::new(),
        }
    }

    /// Sets all routes of a tunnel whose interface has `index`; `way` is that to its `server` from
    /// before. A route that cannot be set is told and passed over.
    pub(super) async fn set(
        &mut self,
        netlink: &Netlink,
        tunnel: (u32, Ipv4Addr),
        outer: (Ipv4Addr, Option<Way>),
        record: &mut Record,
        log: &Log,
    ) -> Result<(), NetlinkError> {
        let ((index, peer), (server, way)) = (tunnel, outer);
        let others = |mut routes: Vec<RouteEntry>| {
            routes.retain(|route| route.interface != Some(index));
            routes
        };
        let defaults = others(netlink.default_routes(None).await?);
        let mut wanted = self.lines_as_entries(index, &defaults, log);
        let beside = match self.table {
            Some(_) => others(netlink.default_routes(self.table).await?),
            None => defaults,
        };
        wanted.extend(self.default_entry(index, &beside, log));
        let is_inside = |route: &RouteEntry| route.interface == Some(index);
        // What is routed in a VRF is no matter for packets that are not.
        let swallows = self.table.is_none()
            && (peer == server
                || wanted
                    .iter()
                    .any(|route| is_inside(route) && route.covers(server)));
        if swallows && let Some(way) = way {
            self.keep_outside(netlink, server, way, record, log).await;
        }
        for route in wanted {
            let result = if is_inside(&route) {
                netlink.add_route(&route).await.map(drop)
            } else {
                self.add_outside(netlink, &route, record).await
            };
            match result {
                Ok(()) => log.line(&format!("Route: {route} added")),
                Err(error) => log.line(&error.to_string()),
            }
        }
        if !self.lines.is_empty() {
            log.line("All routes added.");
        }
        Ok(())
    }

    /// Takes away what `set` has put outside the tunnel.
    pub(super) async fn take_away(&mut self, netlink: &Netlink, record: &mut Record) {
        for route in self.outside.drain(..).rev() {
            netlink.remove_route(&route).await;
        }
        let _ = record.note(|left| left.routes.clear());
    }

    /// A script, or a person, may have led the way to the server into the tunnel: leads it out.
    pub(super) async fn guard(
        &mut self,
        netlink: &Netlink,
        index: u32,
        outer: (Ipv4Addr, Option<Way>),
        record: &mut Record,
        log: &Log,
    ) {
        let (server, Some(way)) = outer else { return };
        let now = netlink.way_to(server, self.mark).await;
        if now.is_ok_and(|now| now.interface == index) {
            self.keep_outside(netlink, server, way, record, log).await;
        }
    }

    /// The routing table of what goes through the tunnel; `None` is the main one.
    pub(super) const fn table(&self) -> Option<u32> {
        self.table
    }

    /// Where packets to `server` go now.
    pub(super) async fn way(
        &self,
        netlink: &Netlink,
        server: Ipv4Addr,
    ) -> Result<Way, NetlinkError> {
        netlink.way_to(server, self.mark).await
    }

    async fn keep_outside(
        &mut self,
        netlink: &Netlink,
        server: Ipv4Addr,
        way: Way,
        record: &mut Record,
        log: &Log,
    ) {
        let route = RouteEntry {
            destination: server,
            prefix_len: 32,
            interface: Some(way.interface),
            gateway: way.gateway,
            metric: 0,
            table: None,
        };
        if !self.may_add_host_route || self.outside.contains(&route) {
            return;
        }
        match self.add_outside(netlink, &route, record).await {
            Ok(()) => log.line(&format!("Route: {route} added for the server")),
            Err(error) => log.line(&error.to_string()),
        }
    }

    async fn add_outside(
        &mut self,
        netlink: &Netlink,
        route: &RouteEntry,
        record: &mut Record,
    ) -> Result<(), NetlinkError> {
        let _ = record.note(|left| left.routes.push(route.clone()));
        let added = netlink.add_route(route).await;
        if matches!(added, Ok(Added::New)) {
            self.outside.push(route.clone());
        } else {
            // It is not ours to take away.
            let _ = record.note(|left| left.routes.retain(|noted| noted != route));
        }
        added.map(drop)
    }

    /// pppd's rule: none where there is one, unless it is to be replaced or has another metric. The
    /// present one is not taken away: ours goes in front of it, and takes itself away.
    fn default_entry(&self, index: u32, present: &[RouteEntry], log: &Log) -> Option<RouteEntry> {
        let DefaultRoute {
            wanted,
            replace,
            metric,
        } = self.default;
        if !wanted {
            return None;
        }
        let in_the_way = present.iter().find(|route| match metric {
            Some(metric) => route.metric == metric,
            None => true,
        });
        if let Some(route) = in_the_way.filter(|_| !replace) {
            let via = route
                .gateway
                .map_or_else(|| "an interface".to_owned(), |it| it.to_string());
            log.line(&format!(
                "not replacing existing default route via {via}: say replacedefaultroute, or give \
                 this one a defaultroute-metric"
            ));
            return None;
        }
        Some(RouteEntry {
            destination: Ipv4Addr::UNSPECIFIED,
            prefix_len: 0,
            interface: Some(index),
            gateway: None,
            metric: metric.unwrap_or(0),
            table: self.table,
        })
    }

    fn lines_as_entries(&self, index: u32, defaults: &[RouteEntry], log: &Log) -> Vec<RouteEntry> {
        let entries = self.lines.iter().map(|line| {
            let entry = |interface: Option<u32>, gateway| RouteEntry {
                destination: line.destination,
                prefix_len: line.prefix_len,
                interface,
                gateway,
                metric: line.metric.unwrap_or(0),
                table: self.table.filter(|_| interface == Some(index)),
            };
            match &line.via {
                RouteVia::Tunnel => Ok(entry(Some(index), None)),
                RouteVia::Gateway(gateway) => Ok(entry(None, Some(*gateway))),
                RouteVia::Device(name) => nix::net::if_::if_nametoindex(name.as_str())
                    .map(|index| entry(Some(index), None))
                    .map_err(|_| format!("there is no interface {name}")),
                RouteVia::DefaultGateway => defaults
                    .first()
                    .map(|default| entry(default.interface, default.gateway))
                    .ok_or_else(|| "there was no default gateway (DEF_GW)".to_owned()),
            }
            .map_err(|why| format!("Route: {} passed over: {why}", line.text))
        });
        entries
            .filter_map(|entry| entry.map_err(|words| log.line(&words)).ok())
            .collect()
    }
}
