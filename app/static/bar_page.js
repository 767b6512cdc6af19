// The bar of a page that is not live itself: how the connection, libvirt and the shared history are, as it changes.

import { connect } from "./connection.js";
import { createStore } from "./store.js";
import { barView, TOLD } from "./views/bar.js";

const BAR_ALONE = "The bar is live. What stands below it is of the moment when the page was loaded.";
const leave = () => window.location.assign(`/login?next=${encodeURIComponent(window.location.pathname + window.location.search)}`);

const store = createStore({});
const view = barView({ ...TOLD, live: BAR_ALONE, requests: BAR_ALONE });
store.subscribe(() => view(store.state));
connect(store, leave, "hypervisor,history");
