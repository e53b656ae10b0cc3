#ifndef ORRERY_SERVER_TEXT_JINJA_LIST_FILTERS_H_
#define ORRERY_SERVER_TEXT_JINJA_LIST_FILTERS_H_

#include <string_view>

#include "server/text/jinja/call.h"

namespace orrery::jinja {

// The filters that work on the elements of a list, a map or a text; null for another name.
Function FindListFilter(std::string_view name);

}  // namespace orrery::jinja

#endif  // ORRERY_SERVER_TEXT_JINJA_LIST_FILTERS_H_
