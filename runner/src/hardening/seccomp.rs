//! Seccomp: system calls that no runner makes, and that attacks on a kernel begin with.

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as ArgLen, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::Part;
use crate::config::{Config, Wanted};

/// What is answered with `EPERM`, as a process without rights would be. A library that tries one of these then does without, and
/// no job is lost to it.
const DENIED: [c_long; 48] = [
    // Other programs, and other processes' memory.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Namespaces and mounts.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    // The kernel, and the machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    // Where most ways into the kernel were found.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
];

/// More of them, which this architecture has.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: [c_long; 4] = [libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_kexec_file_load];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: [c_long; 0] = [];

/// Kernels may take every number with this bit as well, and some calls by other numbers: of programs with 32-bit pointers, which
/// pass for this architecture's.
#[cfg(target_arch = "x86_64")]
const X32: (c_long, &[c_long]) = (0x4000_0000, &[520, 521, 528, 539, 540, 545]);
#[cfg(not(target_arch = "x86_64"))]
const X32: (c_long, &[c_long]) = (0, &[]);

/// Namespaces can be made by `clone` too.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];

/// Sockets of all other families are denied.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Denies this thread, and what it will start, what no runner needs.
pub(super) fn restrict(config: &Config) -> Part {
    if config.hardening.seccomp == Wanted::Off {
        return Part::Off;
    }
    match enforce() {
        Ok(()) => Part::On("seccomp".to_owned()),
        Err(error) => Part::Missing(format!("the kernel does not take it: {error}")),
    }
}

fn enforce() -> Result<(), seccompiler::Error> {
    // `clone3` has its flags in memory, where a filter cannot look. Told that there is none, the C library takes `clone`.
    let absent = compile(both(libc::SYS_clone3, Vec::new), libc::ENOSYS)?;
    seccompiler::apply_filter(&absent)?;
    seccompiler::apply_filter(&compile(denied()?, libc::EPERM)?)
}

fn denied() -> Result<Vec<(c_long, Vec<SeccompRule>)>, seccompiler::BackendError> {
    let always = DENIED.into_iter().chain(DENIED_HERE).flat_map(|call| both(call, Vec::new));
    let mut denied: Vec<_> = always.chain(X32.1.iter().map(|call| (X32.0 | call, Vec::new()))).collect();
    let with = |argument, op, value: libc::c_int| {
        SeccompCondition::new(argument, ArgLen::Dword, op, u64::from(value.unsigned_abs()))
    };
    let one_of =
        |flag: libc::c_int| SeccompRule::new(vec![with(0, Op::MaskedEq(u64::from(flag.unsigned_abs())), flag)?]);
    let namespaces = NAMESPACES.map(one_of).into_iter().collect::<Result<Vec<_>, _>>()?;
    denied.extend(both(libc::SYS_clone, || namespaces.clone()));
    let none_of = FAMILIES.map(|family| with(0, Op::Ne, family)).into_iter().collect::<Result<Vec<_>, _>>()?;
    let others = vec![SeccompRule::new(none_of)?];
    denied.extend(both(libc::SYS_socket, || others.clone()));
    Ok(denied)
}

/// A call by both its numbers.
fn both(call: c_long, rules: impl Fn() -> Vec<SeccompRule>) -> Vec<(c_long, Vec<SeccompRule>)> {
    let mut numbers = vec![call, X32.0 | call];
    numbers.dedup();
    numbers.into_iter().map(|number| (number, rules())).collect()
}

fn compile(
    rules: Vec<(c_long, Vec<SeccompRule>)>,
    answer: libc::c_int,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let rules = rules.into_iter().collect();
    let answer = SeccompAction::Errno(answer.unsigned_abs());
    let architecture = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, answer, architecture)?.try_into()
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpListener;
    use std::process::Command;

    use super::*;

    #[test]
    fn thread_goes_on_and_starts_no_program() {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                enforce().expect("the kernel has it");
                let started = Command::new("/bin/true").status().expect_err("it is denied");
                assert_eq!(started.kind(), ErrorKind::PermissionDenied);
                let root = rustix::process::chroot("/").expect_err("it is denied");
                assert_eq!(root, rustix::io::Errno::PERM);
                // What a runner does goes on: threads, sockets, files.
                let other = std::thread::spawn(|| TcpListener::bind("127.0.0.1:0").map(drop));
                other.join().expect("it starts").expect("it is no other family");
                std::fs::read("/proc/self/status").expect("files are not its business");
            });
        });
        assert!(Command::new("/bin/true").status().is_ok(), "only that thread gave it up");
    }
}
