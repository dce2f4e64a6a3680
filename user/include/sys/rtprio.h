/* Real-time priorities. */
#ifndef _SYS_RTPRIO_H
#define _SYS_RTPRIO_H

struct rtprio {
    unsigned short type, prio;
};

#endif
