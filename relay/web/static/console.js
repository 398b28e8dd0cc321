// The console's beginning: the views and their URLs.

import * as keys from "./keys.js";
import * as live from "./live.js";
import * as router from "./router.js";
import * as status from "./status.js";
import { show as configuration } from "./views/configuration.js";
import { show as limits } from "./views/limits.js";
import { show as message } from "./views/message.js";
import { show as messages } from "./views/messages.js";
import { show as queue } from "./views/queue.js";
import { show as report } from "./views/report.js";
import { show as suppressions } from "./views/suppressions.js";
import { show as upstreams } from "./views/upstreams.js";

router.add(/^\/$/, messages);
router.add(/^\/m\/([^/]+)$/, message);
router.add(/^\/queue$/, queue);
router.add(/^\/upstreams$/, upstreams);
router.add(/^\/suppressions$/, suppressions);
router.add(/^\/limits$/, limits);
router.add(/^\/report$/, report);
router.add(/^\/configuration$/, configuration);

status.start();
live.start();
keys.start();
router.start(document.getElementById("main"));
