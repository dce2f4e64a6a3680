/* Names of the signals. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

const char *const sys_signame[NSIG] = {
    "EXIT", "HUP",  "INT",  "QUIT", "ILL",  "TRAP", "ABRT", "EMT",  "FPE",    "KILL", "BUS",
    "SEGV", "SYS",  "PIPE", "ALRM", "TERM", "URG",  "STOP", "TSTP", "CONT",   "CHLD", "TTIN",
    "TTOU", "IO",   "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "INFO", "USR1", "USR2",
};

static const char *const TEXTS[32] = {
    "Signal 0", "Hangup", "Interrupt", "Quit", "Illegal instruction", "Trace/BPT trap", "Abort trap", "EMT trap",
    "Floating point exception", "Killed", "Bus error", "Segmentation fault", "Bad system call", "Broken pipe",
    "Alarm clock", "Terminated", "Urgent I/O condition", "Suspended (signal)", "Suspended", "Continued",
    "Child exited", "Stopped (tty input)", "Stopped (tty output)", "I/O possible", "Cputime limit exceeded",
    "Filesize limit exceeded", "Virtual timer expired", "Profiling timer expired", "Window size changes",
    "Information request", "User defined signal 1", "User defined signal 2",
};

char *strsignal(int number) {
    static char unknown[32];
    if (number >= 0 && number < 32) return (char *)TEXTS[number];
    snprintf(unknown, sizeof unknown, "Unknown signal: %d", number);
    return unknown;
}
