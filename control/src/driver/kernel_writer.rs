//! What the kernel must know of sessions: devices, addresses and routes, written by a thread of its
//! own, so that the control loop never waits for the kernel's lock over its tables.
//!
//! Orders are carried out in the order in which they were given. Those that have come while the
//! thread was busy go to the kernel together (`batch`): the more sessions come and go, the fewer
//! system calls each of them costs. A session that has to wait for its route is told when it
//! stands.
//!
//! The thread lives in the network namespace where the tunnels end, which need not be that of the
//! control connections.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dataplane::offload::TunFeatures;
use dataplane::program::CallId;
use dataplane::sys::tun;
use nix::net::if_::if_nametoindex;
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::link::{InfoData, InfoVrf, LinkAttribute, LinkInfo};
use rtnetlink::packet_route::route::RouteHeader;
use thiserror::Error;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use self::batch::Requests;
use super::ipv6;
use super::namespace::{self, NamespaceError};
use super::privileges;

mod batch;
mod changes;
pub(crate) mod proxies;

pub(crate) use changes::{Change, RouteVia};

/// Orders that are carried out together. A batch ends the wait of those in it all at once, so it
/// is not without bound.
const ORDERS_MAX: usize = 256;
/// How often it is looked whether nobody uses a device any more that is to be closed.
const CLOSE_CHECK: Duration = Duration::from_millis(5);

/// Why there is no writer.
#[derive(Debug, Error)]
pub enum WriterError {
    /// The operator: the namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The operator: the VRF.
    #[error(
        "cannot use the VRF {name}: {cause}. `ip link add {name} type vrf table 100` makes one, \
         where the kernel has the module vrf"
    )]
    Vrf {
        /// Its interface.
        name: String,
        /// What is wrong.
        cause: String,
    },
    /// The kernel.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[from] std::io::Error),
}

/// Where tunnels end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// File of a network namespace; `None` is our own.
    pub namespace: Option<PathBuf>,
    /// Interface of a VRF there.
    pub vrf: Option<String>,
}

/// Whom an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// Nobody waits, but failures are the session's affair.
    Session(CallId),
    /// The session waits.
    Waiting(CallId),
    /// The device of a worker.
    Worker(u16),
}

/// A TUN device to be made, with what makes it useful.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeviceSpec {
    /// Name, or a pattern such as `ppp%d`, for which the lowest free number is put in.
    pub name: String,
    /// Octets.
    pub mtu: Option<u16>,
    /// Our address, and the peer's where there is only one.
    pub address: Option<(Ipv4Addr, Option<Ipv4Addr>)>,
    pub link_local: Option<Ipv6Addr>,
}

/// A device that has been made.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub name: String,
    pub index: u32,
    pub fd: Arc<OwnedFd>,
    pub features: TunFeatures,
}

/// What has become of an order that somebody waits for, or that failed.
#[derive(Debug)]
pub(crate) struct Done {
    pub whom: For,
    pub device: Option<Device>,
    /// In words.
    pub errors: Vec<String>,
}

enum Order {
    Change(For, Vec<Change>),
    Open(For, DeviceSpec),
    /// Nothing, which fails.
    Refuse(For),
    /// Removes a device as soon as no worker uses it any more.
    Close(Arc<OwnedFd>),
}

/// The thread's other end.
#[derive(Debug)]
pub(crate) struct KernelWriter {
    /// Bounded by the sessions: each has one order that it waits for, and few others.
    orders: Option<Sender<Order>>,
    done: UnboundedReceiver<Done>,
    thread: Option<JoinHandle<()>>,
}

impl KernelWriter {
    /// Starts the thread.
    pub(crate) fn start(place: Place) -> Result<Self, WriterError> {
        let (orders, receiver) = channel();
        let (done, answers) = unbounded_channel();
        let (started, is_started) = channel();
        let thread = std::thread::Builder::new()
            .name("kernel-writer".to_owned())
            .spawn(move || match Writer::open(&place, done) {
                Ok(mut writer) => {
                    let _ = started.send(Ok(()));
                    writer.run(&receiver);
                }
                Err(error) => drop(started.send(Err(error))),
            })?;
        is_started
            .recv()
            .map_err(|_| std::io::Error::other("its thread has ended"))??;
        Ok(Self {
            orders: Some(orders),
            done: answers,
            thread: Some(thread),
        })
    }

    pub(crate) fn change(&self, whom: For, changes: Vec<Change>) {
        self.order(Order::Change(whom, changes));
    }

    pub(crate) fn open(&self, whom: For, device: DeviceSpec) {
        self.order(Order::Open(whom, device));
    }

    /// Says in its turn that an order has failed, without asking the kernel.
    pub(crate) fn refuse(&self, whom: For) {
        self.order(Order::Refuse(whom));
    }

    pub(crate) fn close(&self, fd: Arc<OwnedFd>) {
        self.order(Order::Close(fd));
    }

    /// The next order that is done. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Done {
        match self.done.recv().await {
            Some(done) => done,
            // The thread has ended: there is nothing to come.
            None => std::future::pending().await,
        }
    }

    /// Has everything carried out that was ordered, and ends the thread.
    pub(crate) async fn finish(&mut self, limit: Duration) {
        self.orders = None;
        let Some(thread) = self.thread.take() else {
            return;
        };
        let deadline = Instant::now() + limit;
        while !thread.is_finished() && Instant::now() < deadline {
            tokio::time::sleep(CLOSE_CHECK).await;
        }
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
        }
    }
}

/// What the thread has.
struct Writer {
    requests: Requests,
    done: UnboundedSender<Done>,
    /// Index of the VRF.
    controller: Option<u32>,
    /// Where routes go.
    table: u32,
    /// To be closed.
    dying: Vec<Arc<OwnedFd>>,
}

/// The part of a batch that belongs to one order.
struct Share {
    whom: For,
    device: Option<Device>,
    errors: Vec<String>,
    changes: usize,
}

impl Writer {
    fn open(place: &Place, done: UnboundedSender<Done>) -> Result<Self, WriterError> {
        if let Some(namespace) = &place.namespace {
            namespace::enter(namespace)?;
        }
        let mut requests = Requests::open()?;
        let vrf = place.vrf.as_deref();
        let vrf = vrf.map(|name| find_vrf(&mut requests, name)).transpose()?;
        let main = u32::from(RouteHeader::RT_TABLE_MAIN);
        Ok(Self {
            requests,
            done,
            controller: vrf.map(|(index, _)| index),
            table: vrf.map_or(main, |(_, table)| table),
            dying: Vec::new(),
        })
    }

    fn run(&mut self, orders: &Receiver<Order>) {
        // The control loop does the same, and tells when it cannot be.
        let _ = privileges::give_up();
        loop {
            let first = if self.dying.is_empty() {
                orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                orders.recv_timeout(CLOSE_CHECK)
            };
            match first {
                Ok(first) => {
                    let more = orders.try_iter().take(ORDERS_MAX - 1);
                    let batch: Vec<Order> = std::iter::once(first).chain(more).collect();
                    self.carry_out(batch);
                }
                Err(RecvTimeoutError::Timeout) => {}
                // What is still used goes with those who use it.
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.dying.retain(|fd| Arc::strong_count(fd) > 1);
        }
    }

    fn carry_out(&mut self, batch: Vec<Order>) {
        let (mut shares, mut changes) = (Vec::new(), Vec::new());
        for order in batch {
            let before = changes.len();
            let (whom, device, errors) = match order {
                Order::Close(fd) => {
                    self.dying.push(fd);
                    continue;
                }
                // Why, has been said.
                Order::Refuse(whom) => (whom, None, vec![String::new()]),
                Order::Change(whom, more) => {
                    changes.extend(more);
                    (whom, None, Vec::new())
                }
                Order::Open(whom, spec) => match open_device(&spec) {
                    Ok(device) => {
                        changes.extend(self.changes_for(&device, &spec));
                        (whom, Some(device), Vec::new())
                    }
                    Err(error) => (whom, None, vec![error]),
                },
            };
            shares.push(Share {
                whom,
                device,
                errors,
                changes: changes.len() - before,
            });
        }
        let results = self.requests.make(&changes, self.table);
        let mut made = changes.iter().zip(results);
        for share in shares {
            self.tell(share, &mut made);
        }
    }

    /// Says what came of the next changes of a batch to whom they belong.
    fn tell<'a>(
        &self,
        mut share: Share,
        made: &mut impl Iterator<Item = (&'a Change, std::io::Result<()>)>,
    ) {
        for (change, result) in made.take(share.changes) {
            if let Err(error) = result
                && !change.may_fail(&error)
            {
                share.errors.push(format!("cannot {change}: {error}"));
            }
        }
        if !matches!(share.whom, For::Session(_)) || !share.errors.is_empty() {
            let _ = self.done.send(Done {
                whom: share.whom,
                device: share.device,
                errors: share.errors,
            });
        }
    }

    /// A device enters its VRF before it has addresses, whose routes go to the VRF's table then.
    fn changes_for(&self, device: &Device, spec: &DeviceSpec) -> Vec<Change> {
        let index = device.index;
        let mut changes = Vec::new();
        if let Some(controller) = self.controller {
            changes.push(Change::Enslave { index, controller });
        }
        if let Some((local, peer)) = spec.address {
            changes.push(Change::AddAddress { index, local, peer });
        }
        let mtu = spec.mtu;
        changes.push(Change::SetUp { index, mtu });
        if let Some(address) = spec.link_local {
            changes.push(Change::AddLinkLocal { index, address });
        }
        changes
    }
}

fn open_device(spec: &DeviceSpec) -> Result<Device, String> {
    let opened = tun::open(&spec.name).map_err(|error| error.to_string())?;
    let index = if_nametoindex(opened.name.as_str())
        .map_err(|error| format!("cannot find the interface {}: {error}", opened.name))?;
    ipv6::choose_no_address(&opened.name);
    Ok(Device {
        name: opened.name,
        index,
        fd: Arc::new(opened.fd),
        features: opened.features,
    })
}

/// Index and routing table of a VRF.
fn find_vrf(requests: &mut Requests, name: &str) -> Result<(u32, u32), WriterError> {
    let failed = |cause: String| WriterError::Vrf {
        name: name.to_owned(),
        cause,
    };
    let index = if_nametoindex(name).map_err(|error| failed(error.desc().to_owned()))?;
    let question = LinkUnspec::new_with_index(index).build();
    let link = requests
        .link(question)
        .map_err(|error| failed(error.to_string()))?;
    let infos = link
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        });
    let table = infos.flatten().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vrf(data)) => data.iter().find_map(|data| match data {
            InfoVrf::TableId(table) => Some(*table),
            _ => None,
        }),
        _ => None,
    });
    let table = table.ok_or_else(|| failed("the interface is no VRF".to_owned()))?;
    Ok((index, table))
}
