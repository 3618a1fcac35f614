//! What a client is made of, from its configuration.

use std::cell::Cell;
use std::rc::Rc;

use dataplane::impairment::Impairment;

use super::super::engine::{Direction, Trace};
use super::super::log::Log;
use super::super::scripts::Scripts;
use super::super::transport::TransportConfig;
use super::super::workers::WorkersConfig;
use crate::config::client::{ClientConfig, InterfaceConfig};
use crate::proto::endpoint::{EndpointConfig, Timers};
use crate::wire::log as packet_log;

pub(super) fn endpoint_config(config: &ClientConfig) -> EndpointConfig {
    let host_name = config.pptp.host_name.clone();
    EndpointConfig {
        host_name: host_name.unwrap_or_else(|| "local".to_owned()),
        phone_number: config.pptp.phone.clone(),
        timers: Timers {
            echo_idle_ms: config.pptp.idle_wait_ms,
            echo_wait_ms: config.pptp.max_echo_wait_ms,
            ..Timers::default()
        },
        ..EndpointConfig::default()
    }
}

pub(super) const fn transport_config(config: &ClientConfig) -> TransportConfig {
    TransportConfig {
        local: config.pptp.local_bind,
        mark: config.pptp.mark,
    }
}

pub(super) fn workers_config(config: &ClientConfig) -> WorkersConfig {
    WorkersConfig {
        count: config.workers,
        // More than one worker is of use to a single tunnel only so.
        split_directions: true,
        local: config.pptp.local_bind,
        mark: config.pptp.mark,
        dont_fragment: false,
        sessions_max: 1,
        fast_path: config.fast_path(),
        look_ahead: config.look_ahead,
        impairment: Impairment::default(),
        is_held: false,
    }
}

pub(super) fn trace_to(log: Log, debug: Rc<Cell<bool>>) -> Trace {
    Box::new(move |_, direction, frame| {
        if !debug.get() {
            return;
        }
        let verb = match direction {
            Direction::Sent => "sent",
            Direction::Rcvd => "rcvd",
        };
        log.debug(&format!("{verb} {}", packet_log::describe(frame)));
    })
}

pub(super) fn scripts(config: &ClientConfig) -> Scripts {
    let mut environment = config.environment.clone();
    let named = [
        ("LINKNAME", &config.link_name),
        ("CALL_FILE", &config.call_file),
        ("VRF", &config.interface.vrf),
    ];
    for (name, value) in named {
        if let Some(value) = value {
            environment.push((name.to_owned(), value.clone()));
        }
    }
    Scripts {
        dir: config.scripts_dir.clone(),
        places: config.scripts.clone(),
        ipparam: config.ipparam.clone().unwrap_or_default(),
        environment,
        ..Scripts::default()
    }
}

/// The name that is asked for, or the first free one as pppd takes it.
pub(super) fn interface_pattern(interface: &InterfaceConfig) -> String {
    match (&interface.name, interface.unit) {
        (Some(name), _) => name.clone(),
        (None, Some(unit)) => format!("ppp{unit}"),
        (None, None) => "ppp%d".to_owned(),
    }
}
