//! IPv6 of a client: a link-local address beside the IPv4 addresses, and pppd's scripts.

use dataplane::program::{CallId, Command, Ipv6Spec};

use super::super::ipv6;
use super::super::scripts::Script;
use super::Client;
use crate::proto::link::Ipv6Network;

impl Client<'_> {
    /// Lets IPv6 packets through, too. That this host cannot have them is no reason to end.
    pub(super) async fn ipv6_up(&mut self, call_id: CallId, agreed: Ipv6Network) {
        let Some(standing) = &mut self.network else {
            return;
        };
        let local = agreed.local.link_local();
        if self.config.persist.demand {
            // It was off while packets were waited for.
            ipv6::permit(&self.interface, true);
        }
        if let Err(error) = self.netlink.add_link_local(self.index, local).await {
            return self.log.line(&format!("no IPv6: {error}"));
        }
        standing.ipv6 = Some(agreed);
        let peer = agreed.remote.link_local();
        let ipv6 = Some(Ipv6Spec { peer });
        self.engine
            .command(call_id, Command::SetIpv6 { call_id, ipv6 });
        self.set_default_route6().await;
        self.start_ipv6_script(Script::Ipv6Up, None);
    }

    /// `defaultroute6`. The server has an IPv4 address, so nothing has to stay outside.
    async fn set_default_route6(&self) {
        let Some(metric) = self.config.default_route6 else {
            return;
        };
        let table = self.routes.table();
        let added = self.netlink.add_default_route6(self.index, metric, table);
        match added.await {
            Ok(()) => self.log.line("Route: ::/0 added"),
            Err(error) => self.log.line(&format!(
                "{error}: where there is one, give this one a defaultroute6-metric"
            )),
        }
    }

    /// IPv6 alone ends.
    pub(super) async fn ipv6_down(&mut self) {
        let carried = self.network.as_ref().map(|standing| {
            let (sent, received) = self.octets();
            (standing.since.elapsed().as_secs(), sent, received)
        });
        self.start_ipv6_script(Script::Ipv6Down, carried);
        let standing = self.network.as_mut();
        if let Some(agreed) = standing.and_then(|standing| standing.ipv6.take()) {
            self.forget_link_local(agreed).await;
        }
    }

    /// Takes the address of this end away; on demand, IPv6 waits with it for the next call.
    pub(super) async fn forget_link_local(&self, agreed: Ipv6Network) {
        let local = agreed.local.link_local();
        if let Some(metric) = self.config.default_route6 {
            let table = self.routes.table();
            self.netlink
                .remove_default_route6(self.index, metric, table)
                .await;
        }
        self.netlink.remove_link_local(self.index, local).await;
        if self.config.persist.demand {
            ipv6::permit(&self.interface, false);
        }
    }

    /// Nothing when IPv6 is not up.
    pub(super) fn start_ipv6_script(&self, script: Script, carried: Option<(u64, u64, u64)>) {
        let standing = self.network.as_ref().filter(|it| it.ipv6.is_some());
        if let Some(standing) = standing {
            self.start_script(script, Some(&standing.agreed), carried);
        }
    }
}
