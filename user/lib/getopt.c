/* Options on the command line. */
#include <err.h>
#include <getopt.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

char *optarg;
int optind = 1, opterr = 1, optopt, optreset;

int getopt(int argc, char *const argv[], const char *options) {
    static const char *at = "";
    if (optreset) optreset = 0, at = "";
    if (!*at) {
        if (optind >= argc || argv[optind][0] != '-' || argv[optind][1] == '\0') return -1;
        at = argv[optind] + 1;
        optind++;
        if (at[0] == '-' && at[1] == '\0') {
            at = "";
            return -1;
        }
    }
    optopt = (unsigned char)*at++;
    const char *found = optopt == ':' ? NULL : strchr(options, optopt);
    if (!found) {
        if (opterr && *options != ':') warnx("illegal option -- %c", optopt);
        return '?';
    }
    if (found[1] != ':') return optopt;
    if (*at) {
        optarg = (char *)at;
    } else if (optind < argc) {
        optarg = argv[optind++];
    } else {
        if (opterr && *options != ':') warnx("option requires an argument -- %c", optopt);
        return *options == ':' ? ':' : '?';
    }
    at = "";
    return optopt;
}
