/* Comparisons without case stand in string.h. */
#include <string.h>
