/* Memory from the operating system. */
#ifndef BSA_MAPPING_H
#define BSA_MAPPING_H

#include <stdbool.h>
#include <stddef.h>

/* `size` bytes of fresh zero memory, private, not reserved; NULL with errno set. */
void *bsa_map(size_t size);
void bsa_unmap(void *start, size_t size);

/* Whether the page at the address belongs to a mapping shared between processes. True also where
 * this cannot be told. */
bool bsa_mapping_is_shared(const void *address);

/* Processors online; at least 1. */
unsigned bsa_processors(void);

#endif
