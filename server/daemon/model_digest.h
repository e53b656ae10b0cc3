// A name for the content of a checkpoint, so that a router can refuse a worker that serves another one.
#ifndef ORRERY_SERVER_DAEMON_MODEL_DIGEST_H_
#define ORRERY_SERVER_DAEMON_MODEL_DIGEST_H_

#include <string>

namespace orrery {

// 32 hexadecimal digits over config.json and, for every *.safetensors by name, its size, its beginning (the
// header) and 64 KiB at each of 64 places spread over it: milliseconds for any size, and different for
// different trainings. Files that cannot be read count as empty.
std::string ModelDigest(const std::string& model_dir);
// The same over config.json alone, which a router without weights has too.
std::string ConfigDigest(const std::string& model_dir);

}  // namespace orrery

#endif  // ORRERY_SERVER_DAEMON_MODEL_DIGEST_H_
