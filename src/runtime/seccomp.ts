/**
 * dockerd's default seccomp profile (as of 20.10.24), resolved for one container.
 *
 * The profile is a list of rules, some of which hold only with a capability or on an architecture. Runtimes take plain
 * OCI sections only, so the conditions are settled here. The names are facts about dockerd; what they mean is in seccomp(2).
 */

/** A number that no JavaScript number holds exactly (masks of 64 bits): written again as it was read. */
export interface ExactNumber {
  readonly rawJSON: string;
}

interface Rule {
  readonly names: readonly string[];
  readonly args?: readonly Argument[];
  readonly errno?: number;
  /** Only with this capability. */
  readonly withCapability?: string;
  /** Only without this capability. */
  readonly withoutCapability?: string;
  /** Only on these (Node's names). */
  readonly architectures?: readonly string[];
}

interface Argument {
  readonly index: number;
  readonly value: number | ExactNumber;
  readonly valueTwo?: number | ExactNumber;
  /** `SCMP_CMP_…` */
  readonly op: string;
}

/** `linux.seccomp` of an OCI spec. */
export interface SeccompSection {
  readonly defaultAction: string;
  readonly defaultErrnoRet?: number | ExactNumber;
  readonly architectures: readonly string[];
  readonly flags?: readonly string[];
  readonly syscalls: readonly {
    readonly names: readonly string[];
    readonly action: string;
    readonly errnoRet?: number | ExactNumber;
    readonly args?: readonly Argument[];
  }[];
}

const EPERM = 1;
const ENOSYS = 38;
const AF_VSOCK = 40;
/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET. */
const namespaceFlags = 0x7e020000;

const words = (text: string): readonly string[] => text.trim().split(/\s+/);

const rules: readonly Rule[] = [
  {
    names: words(`
      accept accept4 access adjtimex alarm bind brk capget capset chdir chmod chown chown32 clock_adjtime
      clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
      clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
      epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
      exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchown
      fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64
      fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_time64 futex_waitv futimesat getcpu getcwd
      getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer
      getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32
      getrlimit get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday getuid
      getuid32 getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy
      io_getevents io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set io_setup io_submit io_uring_enter
      io_uring_register io_uring_setup ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown
      lchown32 lgetxattr link linkat listen listxattr llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64
      madvise membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2
      mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
      mq_unlink mremap msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep
      newfstatat _newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free
      pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6
      pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg
      recvmmsg_time64 recvmsg remap_file_pages removexattr rename renameat renameat2 restart_syscall rmdir rseq
      rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
      rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam sched_get_priority_max
      sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity
      sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop
      semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid
      setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid
      setresuid32 setreuid setreuid32 setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address setuid
      setuid32 setxattr shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn
      socketcall socketpair splice stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs
      sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
      timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill
      truncate truncate64 ugetrlimit umask uname unlink unlinkat utime utimensat utimensat_time64 utimes vfork vmsplice
      wait4 waitid waitpid write writev process_vm_readv process_vm_writev ptrace`),
  },
  { names: ['socket'], args: [{ index: 0, value: AF_VSOCK, op: 'SCMP_CMP_NE' }] },
  ...[0x0, 0x8, 0x20000, 0x20008, 0xffffffff].map(
    (value): Rule => ({ names: ['personality'], args: [{ index: 0, value, op: 'SCMP_CMP_EQ' }] }),
  ),
  {
    names: words('arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls'),
    architectures: ['arm64'],
  },
  { names: ['arch_prctl', 'modify_ldt'], architectures: ['x64'] },
  { names: ['open_by_handle_at'], withCapability: 'CAP_DAC_READ_SEARCH' },
  {
    names: words(`bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr
      move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2
      unshare`),
    withCapability: 'CAP_SYS_ADMIN',
  },
  {
    names: ['clone'],
    args: [{ index: 0, value: namespaceFlags, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }],
    withoutCapability: 'CAP_SYS_ADMIN',
  },
  // The C library falls back to clone, whose flags a filter can see, only when clone3 looks absent.
  { names: ['clone3'], errno: ENOSYS, withoutCapability: 'CAP_SYS_ADMIN' },
  { names: ['reboot'], withCapability: 'CAP_SYS_BOOT' },
  { names: ['chroot'], withCapability: 'CAP_SYS_CHROOT' },
  { names: ['delete_module', 'init_module', 'finit_module'], withCapability: 'CAP_SYS_MODULE' },
  { names: ['acct'], withCapability: 'CAP_SYS_PACCT' },
  { names: ['kcmp', 'pidfd_getfd', 'process_madvise'], withCapability: 'CAP_SYS_PTRACE' },
  { names: ['iopl', 'ioperm'], withCapability: 'CAP_SYS_RAWIO' },
  { names: words('settimeofday stime clock_settime clock_settime64'), withCapability: 'CAP_SYS_TIME' },
  { names: ['vhangup'], withCapability: 'CAP_SYS_TTY_CONFIG' },
  {
    names: words('get_mempolicy mbind set_mempolicy set_mempolicy_home_node'),
    withCapability: 'CAP_SYS_NICE',
  },
  { names: ['syslog'], withCapability: 'CAP_SYSLOG' },
  { names: ['bpf'], withCapability: 'CAP_BPF' },
  { names: ['perf_event_open'], withCapability: 'CAP_PERFMON' },
];

const architecturesOf: Readonly<Record<string, readonly string[]>> = {
  x64: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'],
  arm64: ['SCMP_ARCH_AARCH64', 'SCMP_ARCH_ARM'],
};

/** The default profile for a process with these capabilities (`CAP_…`), ready for `linux.seccomp` of an OCI spec. */
export function defaultSeccomp(capabilities: readonly string[], architecture: string = process.arch): SeccompSection {
  const has = new Set(capabilities);
  const holds = (rule: Rule): boolean =>
    (rule.withCapability === undefined || has.has(rule.withCapability)) &&
    (rule.withoutCapability === undefined || !has.has(rule.withoutCapability)) &&
    (rule.architectures === undefined || rule.architectures.includes(architecture));
  return {
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: EPERM,
    architectures: architecturesOf[architecture] ?? [],
    syscalls: rules.filter(holds).map((rule) => ({
      names: rule.names,
      action: rule.errno === undefined ? 'SCMP_ACT_ALLOW' : 'SCMP_ACT_ERRNO',
      ...(rule.errno !== undefined && { errnoRet: rule.errno }),
      ...(rule.args && { args: rule.args }),
    })),
  };
}
